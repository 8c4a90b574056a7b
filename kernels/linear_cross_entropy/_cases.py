"""Shapes of the fused loss: laptop language models, GPT-3 XL's and a large vocabulary."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, N: int, d: int, V: int) -> Case:
    """The mean loss of N tokens."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        x = normal(N, d, device=device, dtype=dtype)
        weight = (d**-0.5 * normal(V, d, device=device, dtype=dtype, seed=1, grad=False)).requires_grad_()
        target = torch.randint(V, (N,), generator=torch.Generator().manual_seed(2)).to(device)
        return (x, weight, target), {}

    return Case(f"{label}: N {N}, d {d}, V {V}", make, 2.0 * N * V * d, 2.0 * d * (N + V))


def plain(x: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """All logits in memory."""
    return F.cross_entropy(F.linear(x, weight).float(), target)


CHECK = case("check", 19, 16, 37)
CPU = [case("characters", 1024, 64, 65), case("small vocabulary", 2048, 128, 4096), case("GPT-2's", 1024, 128, 50257)]
GPU = [case("GPT-3 XL", 16384, 2048, 50257), case("large vocabulary", 8192, 4096, 131072)]
BASELINES = {"logits in memory": plain}

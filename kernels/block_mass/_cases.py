"""Shapes of the block-mass search: the toy video model, and AdaSpa's."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, h: int, T: int, d: int, block: int) -> Case:
    """The second pass of the search; the log-sum-exp is computed where it is cheap, and that of ones elsewhere."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        q, k = (normal(B, h, T, d, device=device, dtype=dtype, seed=s, grad=False) for s in range(2))
        lse = torch.full((B, h, T), float(torch.tensor(T).log()) + 0.5, device=device)
        if T <= 4096:
            lse = ((q.float() @ k.float().mT) * d**-0.5).logsumexp(-1)
        return (q, k, lse), {"block": block}

    return Case(
        f"{label}: B {B}, h {h}, T {T}, d {d}, block {block}", make, 2.0 * B * h * T * T * d, 4.0 * B * h * T * d
    )


def dense(q: torch.Tensor, k: torch.Tensor, lse: torch.Tensor, *, block: int) -> torch.Tensor:
    """A dense forward pass: twice the operations."""
    return F.scaled_dot_product_attention(q, k, q)


CHECK = case("check", 1, 2, 37, 16, 16)
CPU = [case("video laptop", 6, 4, 292, 24, 32), case("long", 1, 4, 2048, 32, 64)]
GPU = [case("HunyuanVideo", 1, 24, 119056, 128, 64), case("Wan 2.1 14B", 2, 40, 75600, 128, 64)]
BASELINES = {"dense SDPA": dense}

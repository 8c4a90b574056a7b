"""Shapes of grouped linear maps: BigMac's laptop preset and GPT-3 XL's experts."""

import torch

from kernels.cases import Arguments, Case, normal


def case(label: str, N: int, inner: int, outer: int, experts: int) -> Case:
    """N rows, sorted by expert, unevenly shared out: the first experts get nothing but what is left over."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        drawn = torch.rand(N, generator=torch.Generator().manual_seed(2)).sqrt()
        counts = (drawn * experts).long().bincount(minlength=experts)
        x = normal(N, inner, device=device, dtype=dtype)
        weight = normal(experts, outer, inner, device=device, dtype=dtype, seed=1)
        return (x, weight, counts.to(device)), {}

    label = f"{label}: {N} rows, {inner} to {outer}, {experts} experts"
    return Case(label, make, 2.0 * N * inner * outer, 2.0 * (N * (inner + outer) + experts * inner * outer))


def loop(x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """One matrix product per expert, after reading the counts back."""
    parts = x.split(counts.tolist())
    return torch.cat([part @ each.mT for part, each in zip(parts, weight.unbind(), strict=True)])


CHECK = case("check", 37, 16, 24, 5)
CPU = [case("laptop, down", 4096, 64, 16, 16), case("laptop, up", 4096, 16, 64, 16)]
GPU = [case("GPT-3 XL, down", 131072, 2048, 512, 64), case("GPT-3 XL, up", 131072, 512, 2048, 64)]
BASELINES = {"loop of matmuls": loop}

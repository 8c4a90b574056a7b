"""Shapes of the matrix profile: the variates of one class of a UEA set, and VSFormer's target on a GPU."""

import torch
from torch import Tensor

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, series: int, T: int, length: int) -> Case:
    """All windows of `length` steps of some series of T steps, in B variates."""
    per_series = T - length + 1
    n = series * per_series

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        x = normal(B, series, T, device=device, dtype=torch.float64, grad=False).cumsum(-1).to(dtype)
        groups = torch.arange(series, device=device).repeat_interleave(per_series)
        return (x.unfold(-1, length, 1).flatten(1, 2), groups), {}

    label = f"{label}: B {B}, {series} series, {n} windows, l {length}"
    return Case(label, make, 2.0 * B * n * n * length, 2.0 * B * n * length)


def blocks(windows: Tensor, groups: Tensor, *, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """torch.cdist on blocks of 1,024 windows, each with all others."""
    z = windows - windows.mean(-1, keepdim=True)
    z = z / (z.std(-1, correction=0, keepdim=True) + eps)
    parts = []
    for rows, own in zip(z.split(1024, 1), groups.split(1024), strict=True):
        parts.append(torch.cdist(rows, z).masked_fill_(own[:, None] == groups, torch.inf).min(-1))
    return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1)


CHECK = case("check", 2, 3, 14, 5)
CPU = [case("RacketSports, a class", 6, 38, 30, 9), case("ArticularyWordRecognition, a class", 2, 11, 144, 43)]
GPU = [case("VSFormer's target", 1, 20, 1049, 50), case("StandWalkJump, a class", 4, 4, 2500, 750)]
BASELINES = {"cdist in blocks": blocks}

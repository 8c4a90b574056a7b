"""Shapes of causal convolutions: Mamba's and MossFormer's short ones, LMU's memory on speech."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, T: int, C: int, L: int, groups: int | None = None) -> Case:
    """C outputs of `groups` inputs (C of them where None)."""
    groups = groups or C

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        u = normal(B, T, groups, device=device, dtype=dtype)
        kernel = (L**-0.5 * normal(C, L, device=device, dtype=dtype, seed=1, grad=False)).requires_grad_()
        return (u, kernel), {}

    return Case(
        f"{label}: B {B}, T {T}, {groups} to {C}, L {L}", make, 2.0 * B * T * C * min(L, T), 2.0 * B * T * (C + groups)
    )


def conv1d(u: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """torch's convolution, as one writes it."""
    return F.conv1d(F.pad(u.mT, (kernel.shape[1] - 1, 0)), kernel.flip(1)[:, None], groups=u.shape[-1]).mT


CHECK = case("check", 2, 21, 6, 5)
CPU = [
    case("Mamba, 4 taps", 16, 128, 128, 4),
    case("MossFormer, 17 taps", 4, 400, 64, 17),
    case("LMU on speech", 16, 101, 128, 101, groups=1),
]
GPU = [
    case("Mamba, 4 taps", 8, 2048, 1536, 4),
    case("LMU on speech", 256, 128, 2048, 128, groups=1),
    case("long convolution", 4, 4096, 1024, 4096),
]
BASELINES = {"conv1d": conv1d}

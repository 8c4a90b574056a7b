"""Shapes of the selective scan: S-Mamba's laptop and published rows, and Mamba's own width."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, T: int, C: int, n: int) -> Case:
    """A scan with D and z; 9 operations per state and token (decay, update, read-out)."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        def draw(seed: int, *shape: int) -> torch.Tensor:
            return normal(*shape, device=device, dtype=dtype, seed=seed)

        delta = F.softplus(draw(1, B, T, C).detach() - 2).requires_grad_()
        A = -torch.arange(1, n + 1, device=device, dtype=torch.float32).repeat(C, 1)
        return (draw(0, B, T, C), delta, A.requires_grad_(), draw(2, B, T, n), draw(3, B, T, n), draw(4, C)), {
            "z": draw(5, B, T, C)
        }

    return Case(f"{label}: B {B}, T {T}, C {C}, n {n}", make, 9.0 * B * T * C * n, 2.0 * B * T * (4 * C + 2 * n))


CHECK = case("check", 2, 21, 5, 3)
CPU = [case("laptop preset", 32, 21, 128, 16), case("512 tokens", 4, 512, 64, 16)]
GPU = [
    case("s_mamba traffic", 16, 862, 512, 16),
    case("2k tokens", 8, 2048, 1536, 16),
    case("16k tokens", 1, 16384, 1536, 16),
]
BASELINES = {}
try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    BASELINES["mamba-ssm"] = lambda u, delta, A, B, C, D=None, z=None: (
        selective_scan_fn(
            *(x.mT.contiguous() for x in (u, delta)),
            A,
            B.mT.contiguous(),
            C.mT.contiguous(),
            D.float(),
            z.mT.contiguous(),
        ).mT
    )
except ImportError:  # pip install mamba-ssm needs a CUDA compiler
    pass

"""Shapes of linear attention: the survey's laptop comparison and long text."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, h: int, T: int, m: int, e: int, causal: bool = False) -> Case:
    """m positive features, as of FAVOR+."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        q, k = ((0.3 * normal(B, h, T, m, device=device, dtype=dtype, seed=s, grad=False)).exp() for s in range(2))
        v = normal(B, h, T, e, device=device, dtype=dtype, seed=2)
        return (q.requires_grad_(), k.requires_grad_(), v), {"causal": causal}

    label = f"{label}: B {B}, h {h}, T {T}, m {m}, e {e}"
    return Case(label, make, 4.0 * B * h * T * m * e, 4.0 * B * h * T * (m + e))


def softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Softmax attention over e values of q and k: what the features stand in for."""
    e = v.shape[-1]
    return F.scaled_dot_product_attention(q[..., :e], k[..., :e], v, is_causal=causal)


CHECK = case("check", 1, 2, 37, 16, 16, causal=True)
CPU = [
    case("performer, 1k", 1, 2, 1024, 64, 32),
    case("performer, 4k", 1, 2, 4096, 64, 32),
    case("causal, 1k", 1, 2, 1024, 64, 32, causal=True),
]
GPU = [
    case("performer, 16k", 1, 16, 16384, 256, 64),
    case("performer, 65k", 1, 16, 65536, 256, 64),
    case("causal, 16k", 1, 16, 16384, 256, 64, causal=True),
]
BASELINES = {"softmax SDPA": softmax}

"""Shapes of dense and windowed attention: the laptop presets, the video papers, long text."""

from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, h: int, T: int, d: int, grad: bool = True, **options: object) -> Case:
    """Self-attention of T tokens; a window needs only its band."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        return tuple(normal(B, h, T, d, device=device, dtype=dtype, seed=s, grad=grad) for s in range(3)), dict(options)

    window = options.get("window")
    pairs = T * min(T, 2 * window + 1) if window is not None else T * T / (2 if options.get("causal") else 1)
    return Case(f"{label}: B {B}, h {h}, T {T}, d {d}", make, 4.0 * B * h * pairs * d, 8.0 * B * h * T * d)


CHECK = case("check", 1, 2, 37, 16)
CPU = [
    case("iTransformer laptop", 32, 8, 18, 16),
    case("iTransformer ETTh1", 32, 8, 11, 64),
    case("vit laptop", 64, 4, 65, 16),
    case("causal text", 16, 4, 128, 16, causal=True),
]
GPU = [
    case("causal language model", 4, 16, 4096, 64, causal=True),
    case("window 256 of 16k", 1, 16, 16384, 64, window=256),
    case("window 256 of 65k", 1, 16, 65536, 64, window=256),
    case("Wan 2.1 1.3B", 1, 12, 32760, 128, grad=False),
]


def sdpa(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
    """Dense attention by one of torch's own kernels; a window is computed in full, as one would without ours."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=bool(options.get("causal")))


BASELINES = {
    "SDPA flash": partial(sdpa, SDPBackend.FLASH_ATTENTION),
    "SDPA cuDNN": partial(sdpa, SDPBackend.CUDNN_ATTENTION),
}

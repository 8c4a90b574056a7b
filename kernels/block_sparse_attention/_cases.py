"""Shapes of block-sparse attention: the toy video model, and the video models of the papers at several sparsities."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.block_sparse_attention import BlockMask, patterns
from kernels.cases import Arguments, Case, normal

VIDEO = {"CogVideoX1.5": (2, 48, 45106, 64), "HunyuanVideo": (1, 24, 119056, 128), "Wan 2.1 14B": (2, 40, 75600, 128)}


def case(
    label: str, B: int, h: int, T: int, d: int, block: int, density: float, mask: Callable[[], BlockMask], grad: bool
) -> Case:
    """Self-attention of T tokens of which about a share `density` of the blocks is kept."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        tensors = (normal(B, h, T, d, device=device, dtype=dtype, seed=s, grad=grad) for s in range(3))
        return (*tensors, mask().to(device)), {}

    label = f"{label}: B {B}, h {h}, T {T}, d {d}, block {block}"
    return Case(label, make, 4.0 * B * h * density * T * T * d, 8.0 * B * h * T * d)


def scattered(label: str, B: int, h: int, T: int, d: int, block: int, density: float, grad: bool = False) -> Case:
    """The same number of random blocks in every row of every head, as top-k search leaves them."""
    count = max(1, round(density * -(-T // block)))

    def made() -> BlockMask:
        return patterns.random(T, block, count, heads=h, generator=torch.Generator().manual_seed(0))

    return case(f"{label}, {1 - density:.0%} left out", B, h, T, d, block, density, made, grad)


def of_sparse_vdit() -> list[Case]:
    """Sparse-vDiT's kernels at a density of 0.25; the multi-diagonal one is the diagonal one on permuted tokens."""
    B, h, T, d = VIDEO["CogVideoX1.5"]
    blocks = -(-T // 128)
    band = max(1, patterns.window_width(0.25, T, 226) // 128)
    columns = (torch.arange(blocks) % 4 == 0)[None, None]
    return [
        case("diagonal", B, h, T, d, 128, 0.25, partial(patterns.diagonal, T, 128, band, 226), False),
        case("vertical stripe", B, h, T, d, 128, 0.25, partial(patterns.vertical_stripe, T, 128, columns, 226), False),
    ]


def of_efficient_vdit() -> list[Case]:
    """Attention tiles of 29 and 93 frames, the sparsest of each; the share kept is the published one."""
    tiles = ((8, 1, 0.3562), (24, 3, 0.2795))
    return [
        case(
            f"tile {k}:{f - k}",
            1,
            24,
            f * 3600,
            96,
            128,
            share,
            partial(patterns.attention_tile, f, 3600, k, 128),
            False,
        )
        for f, k, share in tiles
    ]


CHECK = scattered("check", 1, 2, 37, 16, 16, 0.6, grad=True)
CPU = [
    scattered("video laptop", 6, 4, 292, 24, 32, 0.36, grad=True),
    scattered("long", 1, 4, 1024, 32, 64, 0.1, grad=True),
]
GPU = [scattered(name, *shape, 128, density) for name, shape in VIDEO.items() for density in (0.5, 0.3, 0.1)]
GPU += [*of_sparse_vdit(), *of_efficient_vdit(), scattered("training", 1, 16, 16384, 64, 128, 0.1, grad=True)]


def dense(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: BlockMask) -> torch.Tensor:
    """All blocks, by one of torch's own kernels: what a sparse one has to beat."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v)


BASELINES = {
    "dense SDPA flash": partial(dense, SDPBackend.FLASH_ATTENTION),
    "dense SDPA cuDNN": partial(dense, SDPBackend.CUDNN_ATTENTION),
}

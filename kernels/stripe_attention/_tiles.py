"""What the forward and the backward kernel of stripe attention share: loading pixels of a stripe, sizes of tiles.

A stripe has n = height * width pixels; pixel i is row i // width, column i % width of it. Stripes may reach beyond the
map: what lies there is zero.
"""

import triton
import triton.language as tl
from torch import Tensor

from kernels.stripe_attention._stripes import Branch


def tile(pixels: int, d_width: int, itemsize: int) -> int:
    """Pixels of a tile: a whole stripe where it is small, as then nothing is loaded or computed twice.

    The limits keep four tiles and the scores in an SM; float32 products, which tensor cores do not do, need most.
    """
    limit = 32 if itemsize > 2 or d_width > 128 else 64 if d_width > 64 else 128
    whole = max(16, triton.next_power_of_2(pixels))
    return whole if whole <= limit else min(limit, 64)


def meta(branch: Branch, size: tuple[int, int], d: int, itemsize: int) -> dict[str, int]:
    """Arguments of every kernel but its tensors, strides and scale."""
    pixels = branch.height * branch.width
    d_width = max(16, triton.next_power_of_2(d))
    block = tile(pixels, d_width, itemsize)
    return {
        "H": size[0],
        "W": size[1],
        "columns": branch.columns,
        "top": branch.top,
        "left": branch.left,
        "HEIGHT": branch.height,
        "WIDTH": branch.width,
        "TILES": triton.cdiv(pixels, block),
        "BLOCK": block,
        "D": d,
        "D_WIDTH": d_width,
        "num_warps": 8 if block > 64 or d_width > 64 else 4,
        "num_stages": 2 if itemsize > 2 or d_width > 64 else 3,
    }


def like_heads_last(x: Tensor) -> Tensor:
    """An empty tensor of x's shape (B, h, N, d) that lies in memory as (B, N, h, d)."""
    B, h, N, d = x.shape
    return x.new_empty(B, N, h, d).transpose(1, 2)


@triton.jit
def corner(columns, top, left, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, TILES: tl.constexpr):
    """(first row, first column) in the map of this program's stripe, and its tile."""
    stripe = tl.program_id(1) // TILES
    row = stripe // columns * HEIGHT - top
    column = stripe % columns * WIDTH - left
    return row, column, tl.program_id(1) % TILES


@triton.jit
def places(i, dy, dx, row, column, H, W, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Where in the map the pixels dy rows below and dx columns right of pixels i are; whether in stripe and map."""
    y = i // WIDTH + dy
    x = i % WIDTH + dx
    in_stripe = (i < HEIGHT * WIDTH) & (y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH)
    in_map = (row + y >= 0) & (row + y < H) & (column + x >= 0) & (column + x < W)
    return ((row + y) * W + column + x).to(tl.int64), in_stripe & in_map


@triton.jit
def load(ptr, place, there, stride_n, stride_d, D: tl.constexpr, D_WIDTH: tl.constexpr):
    """The pixels at these places, (BLOCK, D_WIDTH), zeros where there is none."""
    i_d = tl.arange(0, D_WIDTH)
    mask = there[:, None] & (i_d < D)[None, :]
    return tl.load(ptr + place[:, None] * stride_n + i_d[None, :] * stride_d, mask=mask, other=0.0)


@triton.jit
def store(ptr, place, there, stride_n, stride_d, x, D: tl.constexpr, D_WIDTH: tl.constexpr):
    i_d = tl.arange(0, D_WIDTH)
    mask = there[:, None] & (i_d < D)[None, :]
    tl.store(ptr + place[:, None] * stride_n + i_d[None, :] * stride_d, x.to(ptr.dtype.element_ty), mask=mask)

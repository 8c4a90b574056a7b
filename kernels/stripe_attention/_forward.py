"""The forward kernel of stripe attention: a program per tile of queries of a stripe, flash attention over its stripe.

Pixels are read where they lie in the map, by strides: nothing is cut or permuted. LePE's nine taps are nine shifted
loads of v, which the program has just read.
Shapes: B batch, h heads of a branch, N = H * W pixels, d head dimension.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu
from kernels.stripe_attention._stripes import Branch
from kernels.stripe_attention._tiles import corner, load, meta, places, store

LOG2E = math.log2(math.e)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    lse: Tensor,
    branch: Branch,
    size: tuple[int, int],
    scale: float,
) -> None:
    """Writes the heads of one branch into y (B, h, N, d) and lse (B, h, N); weight (h * d, 9), bias (h * d,)."""
    B, h, _, d = q.shape
    options = meta(branch, size, d, q.element_size())
    _forward[(h, branch.rows * branch.columns * options["TILES"], B)](
        q,
        k,
        v,
        q if weight is None else weight,
        q if bias is None else bias,
        y,
        lse,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        *y.stride(),
        *lse.stride(),
        scale * LOG2E,
        LEPE=weight is not None,
        BIAS=bias is not None,
        **options,
    )


@triton.jit
def _forward(
    q_ptr,
    k_ptr,
    v_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    lse_ptr,
    q_b,
    q_h,
    q_n,
    q_d,
    k_b,
    k_h,
    k_n,
    k_d,
    v_b,
    v_h,
    v_n,
    v_d,
    y_b,
    y_h,
    y_n,
    y_d,
    lse_b,
    lse_h,
    lse_n,
    scale,  # times log2(e): exponentials are powers of two here
    H,
    W,
    columns,
    top,
    left,
    LEPE: tl.constexpr,
    BIAS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_WIDTH: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    row, column, tile = corner(columns, top, left, HEIGHT, WIDTH, TILES)
    k_ptr += b * k_b + head * k_h
    v_ptr += b * v_b + head * v_h
    i = tile * BLOCK + tl.arange(0, BLOCK)
    place, there = places(i, 0, 0, row, column, H, W, HEIGHT, WIDTH)
    q = load(q_ptr + b * q_b + head * q_h, place, there, q_n, q_d, D, D_WIDTH)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    y = tl.zeros((BLOCK, D_WIDTH), tl.float32)
    for start in range(0, HEIGHT * WIDTH, BLOCK):
        j = start + tl.arange(0, BLOCK)
        key, key_there = places(j, 0, 0, row, column, H, W, HEIGHT, WIDTH)
        k = load(k_ptr, key, key_there, k_n, k_d, D, D_WIDTH)
        v = load(v_ptr, key, key_there, v_n, v_d, D, D_WIDTH)
        scores = gpu.dot(q, tl.trans(k), tl.zeros((BLOCK, BLOCK), tl.float32)) * scale
        scores = tl.where((j < HEIGHT * WIDTH)[None, :], scores, float("-inf"))  # padding of the map does take part
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        y = gpu.dot(weights.to(v.dtype), v, y * shrink[:, None])
        largest = larger
    y = y / total[:, None]
    if LEPE:
        channel = head * D + tl.arange(0, D_WIDTH)
        is_channel = tl.arange(0, D_WIDTH) < D
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                if (HEIGHT > 1 or dy == 1) and (WIDTH > 1 or dx == 1):
                    near, near_there = places(i, dy - 1, dx - 1, row, column, H, W, HEIGHT, WIDTH)
                    v_near = load(v_ptr, near, near_there, v_n, v_d, D, D_WIDTH).to(tl.float32)
                    tap = tl.load(weight_ptr + channel * 9 + dy * 3 + dx, mask=is_channel, other=0.0)
                    y += v_near * tap.to(tl.float32)[None, :]
        if BIAS:
            y += tl.load(bias_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    store(y_ptr + b * y_b + head * y_h, place, there, y_n, y_d, y, D, D_WIDTH)
    lse = (largest + tl.log2(total)) * 0.6931471805599453  # natural logarithm
    tl.store(lse_ptr + b * lse_b + head * lse_h + place * lse_n, lse, mask=there)

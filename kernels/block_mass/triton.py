"""Block masses in one pass over the keys: half of a flash-attention forward, without values and running maximum.

A program has R blocks of queries (up to 128 rows) and walks over the blocks of keys: one product, one exp2, one sum to
a number for each of its blocks. A tile holds one block of keys, padded to a power of two.
Shapes: B batch, h heads, T queries, S keys, d head dimension, P blocks of queries, N blocks of keys.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs

ROWS = 128  # of queries in a program, and keys of a tile, at most
MEMORY = 96 * 2**10  # bytes of tiles that any supported GPU can hold
LOG2E = math.log2(math.e)


def fits(
    q: Tensor, k: Tensor, lse: Tensor, *, block: int, scale: float | None = None, key_lengths: Tensor | None = None
) -> str:
    if block > ROWS:
        return f"blocks of {block} tokens (at most {ROWS})"
    if _tiles(block, q.shape[-1], q.element_size())[2] == 0:
        return f"blocks of {block} tokens of {q.shape[-1]} numbers in {q.dtype}"
    return ""


def _tiles(block: int, d: int, itemsize: int) -> tuple[int, int, int]:
    """(width of a padded block, query blocks of a program, tiles of keys that are loaded ahead)."""
    width = max(16, triton.next_power_of_2(block))
    row = max(16, triton.next_power_of_2(d)) * itemsize  # bytes
    rows = max(width, ROWS if row <= 256 else 64)
    if itemsize > 2:  # products without tensor cores
        rows = max(width, 32)
    return width, rows // width, max(0, min(3, (MEMORY - rows * row) // (width * row)))


def block_mass(
    q: Tensor, k: Tensor, lse: Tensor, *, block: int, scale: float | None = None, key_lengths: Tensor | None = None
) -> Tensor:
    return _block_mass(q, k, lse, block, q.shape[-1] ** -0.5 if scale is None else scale, key_lengths)


@torch.library.custom_op("runner::block_mass", mutates_args=())
def _block_mass(q: Tensor, k: Tensor, lse: Tensor, block: int, scale: float, key_lengths: Tensor | None) -> Tensor:
    (B, h, T, d), S = q.shape, k.shape[2]
    P, N = triton.cdiv(T, block), triton.cdiv(S, block)
    mass = q.new_zeros(B, h, P, N, dtype=torch.float32)
    width, per_program, stages = _tiles(block, d, q.element_size())
    _kernel[(triton.cdiv(P, per_program), h, B)](
        q,
        k,
        lse,
        q if key_lengths is None else key_lengths,  # not read then
        mass,
        *q.stride(),
        *k.stride(),
        *lse.stride(),
        *mass.stride(),
        T,
        S,
        P,
        scale * LOG2E,
        BLOCK=block,
        WIDTH=width,
        R=per_program,
        D=d,
        D_WIDTH=max(16, triton.next_power_of_2(d)),
        PADDED=key_lengths is not None,
        num_warps=8 if d > 64 else 4,
        num_stages=stages,
    )
    return mass


@_block_mass.register_fake
def _(q, k, lse, block, scale, key_lengths):
    B, h, T, _ = q.shape
    return q.new_empty(B, h, -(-T // block), -(-k.shape[2] // block), dtype=torch.float32)


@triton.jit
def _kernel(
    q_ptr,
    k_ptr,
    lse_ptr,
    lengths_ptr,
    mass_ptr,
    q_b,
    q_h,
    q_t,
    q_d,
    k_b,
    k_h,
    k_s,
    k_d,
    lse_b,
    lse_h,
    lse_t,
    mass_b,
    mass_h,
    mass_p,
    mass_n,
    T,
    S,
    P,
    scale,  # times log2(e): exponentials are powers of two here
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
    D_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
):
    b = tl.program_id(2).to(tl.int64)
    h = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * R  # block of queries
    row = tl.arange(0, R * WIDTH)
    t = (first + row // WIDTH) * BLOCK + row % WIDTH
    is_query = (row % WIDTH < BLOCK) & (t < T)
    i_d = tl.arange(0, D_WIDTH)
    q = tl.load(
        q_ptr + b * q_b + h * q_h + t[:, None].to(tl.int64) * q_t + i_d[None, :] * q_d,
        mask=is_query[:, None] & (i_d < D)[None, :],
        other=0.0,
    )
    lse = tl.load(lse_ptr + b * lse_b + h * lse_h + t.to(tl.int64) * lse_t, mask=is_query, other=float("inf"))
    lse = lse.to(tl.float32) * 1.4426950408889634
    lse = tl.where(lse == float("-inf"), float("inf"), lse)  # a query without keys has no mass

    length = S
    if PADDED:
        length = tl.minimum(tl.load(lengths_ptr + b).to(tl.int32), S)
    column = tl.arange(0, WIDTH)
    k_ptrs = k_ptr + b * k_b + h * k_h + column[None, :].to(tl.int64) * k_s + i_d[:, None] * k_d
    block = first + tl.arange(0, R)
    mass_ptrs = mass_ptr + b * mass_b + h * mass_h + block.to(tl.int64) * mass_p
    full = length // BLOCK
    for n in range(0, full):
        if WIDTH > BLOCK or D_WIDTH > D:
            k = tl.load(k_ptrs, mask=(column < BLOCK)[None, :] & (i_d < D)[:, None], other=0.0)
        else:
            k = tl.load(k_ptrs)
        weights = tl.exp2(gpu.dot(q, k, tl.zeros((R * WIDTH, WIDTH), tl.float32)) * scale - lse[:, None])
        if WIDTH > BLOCK:
            weights = tl.where((column < BLOCK)[None, :], weights, 0.0)
        sums = tl.sum(tl.reshape(tl.sum(weights, 1), (R, WIDTH)), 1)
        tl.store(mass_ptrs + n * mass_n, sums, mask=block < P)
        k_ptrs += BLOCK * k_s
    rest = length - full * BLOCK
    if rest > 0:  # the last block of keys, a part of one
        mask = (column < rest)[None, :] & (i_d < D)[:, None]
        k = tl.load(k_ptrs, mask=mask, other=0.0)
        weights = tl.exp2(gpu.dot(q, k, tl.zeros((R * WIDTH, WIDTH), tl.float32)) * scale - lse[:, None])
        weights = tl.where((column < rest)[None, :], weights, 0.0)
        sums = tl.sum(tl.reshape(tl.sum(weights, 1), (R, WIDTH)), 1)
        tl.store(mass_ptrs + full * mass_n, sums, mask=block < P)

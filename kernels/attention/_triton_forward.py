"""Attention forward in Triton: FlashAttention-2 (Dao 2023, arXiv 2307.08691, alg. 1).

A program computes a block of queries of one head; the keys that the block can see pass by, and the softmax is kept up
to date with its running maximum. Shapes as in triton.py.
"""

import triton
import triton.language as tl

from kernels import gpu
from kernels.attention._triton_tiles import LN2, keys_of, phases, put, scores, tile


@triton.jit
def _attend(
    acc, top, total, q, k, v, first, stop, low, high, row, mask, T, S, scale_log2,
    stride_k, stride_v, mask_row, mask_column,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    MASK: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """Takes the keys first, ..., stop - 1 into the running sums."""
    for j in range(first, stop, N):
        column = j + tl.arange(0, N)[None, :]
        k_tile = tile(k, j, stride_k, S, D, N, BLOCK_D)
        s = scores(q, k_tile, row, column, mask, mask_row, mask_column, T, S, scale_log2, MASK, M, N)
        if CHECKED:
            s = tl.where((column >= low) & (column < high), s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))
        finite = tl.where(new_top == float("-inf"), 0.0, new_top)  # nothing seen so far: exp2(-inf - 0) = 0
        p = tl.exp2(s - finite[:, None])
        shrink = tl.exp2(top - finite)
        total = total * shrink + tl.sum(p, 1)
        v_tile = tile(v, j, stride_v, S, E, N, BLOCK_E)
        acc = gpu.dot(p.to(v_tile.dtype), v_tile, acc * shrink[:, None])
        top = new_top
    return acc, top, total


@triton.jit
def outputs(
    q, k, v, mask, lengths, starts, ends, y, lse,
    T, S, heads, group, window, scale_log2,
    stride_qb, stride_qh, stride_q, stride_kb, stride_kh, stride_k, stride_vb, stride_vh, stride_v,
    stride_yb, stride_yh, stride_y, mask_batch, mask_head, mask_row, mask_column,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr, LENGTHS: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    blocks = (T + M - 1) // M
    block = tl.program_id(0) % blocks
    if CAUSAL:
        block = blocks - 1 - block  # the longest first
    number = tl.program_id(0) // blocks
    batch, head = (number // heads).to(tl.int64), (number % heads).to(tl.int64)
    k_head = head // group
    q += batch * stride_qb + head * stride_qh
    k += batch * stride_kb + k_head * stride_kh
    v += batch * stride_vb + k_head * stride_vh
    y += batch * stride_yb + head * stride_yh
    mask += batch * mask_batch + head * mask_head
    length = S
    if LENGTHS:
        length = tl.minimum(tl.load(lengths + batch).to(tl.int32), S)

    first = block * M
    row = first + tl.arange(0, M)
    last = tl.minimum(first + M, T) - 1
    low, high = keys_of(row, T, S, length, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    low_first, high_first = keys_of(first, T, S, length, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    low_last, high_last = keys_of(last, T, S, length, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    begin, whole, partial, end = phases(low_first, high_first, low_last, high_last, N)

    top = tl.full((M,), float("-inf"), dtype=tl.float32)
    total = tl.full((M,), 0.0, dtype=tl.float32)
    acc = tl.full((M, BLOCK_E), 0.0, dtype=tl.float32)
    q_tile = tile(q, first, stride_q, T, D, M, BLOCK_D)
    low, high, rows = low[:, None], high[:, None], row[:, None]
    if WINDOWED or PACKED:  # else every query sees the first key
        acc, top, total = _attend(
            acc, top, total, q_tile, k, v, begin, tl.minimum(whole, end), low, high, rows, mask, T, S, scale_log2,
            stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
        )  # fmt: skip
    acc, top, total = _attend(
        acc, top, total, q_tile, k, v, whole, partial, low, high, rows, mask, T, S, scale_log2,
        stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, False,
    )  # fmt: skip
    acc, top, total = _attend(
        acc, top, total, q_tile, k, v, partial, end, low, high, rows, mask, T, S, scale_log2,
        stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
    )  # fmt: skip

    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    put(y, first, stride_y, T, acc / total[:, None], E, M, BLOCK_E)
    lse_row = tl.where(empty, float("-inf"), (top + tl.log2(total)) * LN2)
    tl.store(lse + tl.cast(number, tl.int64) * T + row, lse_row, mask=row < T)

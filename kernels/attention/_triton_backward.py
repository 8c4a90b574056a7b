"""Gradients of attention in Triton: FlashAttention-2 (Dao 2023, arXiv 2307.08691, alg. 2), two kernels without atomics.

With the weights p and dp = dy v^T, the gradient of the scores is p (dp - delta), where delta = sum(dy y) - dlse: what
reaches the log-sum-exp, whose derivative is p too, joins in there. One kernel sums over the keys for dq, the other over
the queries, of all heads that share a key head, for dk and dv. Shapes as in triton.py.
"""

import triton
import triton.language as tl

from kernels import gpu
from kernels.attention._triton_tiles import LOG2E, keys_of, phases, put, queries_of, scores, tile


@triton.jit
def row_sums(
    y, dy, lse, dlse, delta, T, heads,
    stride_yb, stride_yh, stride_y, stride_dyb, stride_dyh, stride_dy, stride_db, stride_dh, stride_d,
    E: tl.constexpr, M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """delta = sum(dy y) - dlse."""
    blocks = (T + M - 1) // M
    first = tl.program_id(0) % blocks * M
    number = tl.program_id(0) // blocks
    batch, head = (number // heads).to(tl.int64), (number % heads).to(tl.int64)
    y_tile = tile(y + batch * stride_yb + head * stride_yh, first, stride_y, T, E, M, BLOCK_E)
    dy_tile = tile(dy + batch * stride_dyb + head * stride_dyh, first, stride_dy, T, E, M, BLOCK_E)
    row = first + tl.arange(0, M)
    at = tl.cast(number, tl.int64) * T + row
    to_lse = tl.load(dlse + batch * stride_db + head * stride_dh + row.to(tl.int64) * stride_d, mask=row < T, other=0.0)
    seen = tl.load(lse + at, mask=row < T, other=0.0) != float("-inf")
    sums = tl.sum(y_tile.to(tl.float32) * dy_tile.to(tl.float32), 1) - to_lse
    tl.store(delta + at, tl.where(seen, sums, 0.0), mask=row < T)  # the lse of nothing may get a gradient of nan


@triton.jit
def _add_to_dq(
    dq, q, dy, k, v, lse, delta, first, stop, low, high, row, mask, T, S, scale_log2,
    stride_k, stride_v, mask_row, mask_column,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    MASK: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    for j in range(first, stop, N):
        column = j + tl.arange(0, N)[None, :]
        k_tile = tile(k, j, stride_k, S, D, N, BLOCK_D)
        s = scores(q, k_tile, row, column, mask, mask_row, mask_column, T, S, scale_log2, MASK, M, N)
        if CHECKED:
            s = tl.where((column >= low) & (column < high), s, float("-inf"))
        p = tl.exp2(s - lse)
        v_tile = tile(v, j, stride_v, S, E, N, BLOCK_E)
        dp = gpu.dot(dy, tl.trans(v_tile), tl.full((M, N), 0.0, dtype=tl.float32))
        dq = gpu.dot((p * (dp - delta)).to(k_tile.dtype), k_tile, dq)
    return dq


@triton.jit
def gradient_of_queries(
    q, k, v, dy, mask, lengths, starts, ends, lse, delta, dq,
    T, S, heads, group, window, scale, scale_log2,
    stride_qb, stride_qh, stride_q, stride_kb, stride_kh, stride_k, stride_vb, stride_vh, stride_v,
    stride_dyb, stride_dyh, stride_dy, stride_dqb, stride_dqh, stride_dq, mask_batch, mask_head, mask_row, mask_column,
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
    k += batch * stride_kb + k_head * stride_kh
    v += batch * stride_vb + k_head * stride_vh
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

    at = tl.cast(number, tl.int64) * T + row
    lse_row = tl.load(lse + at, mask=row < T, other=float("inf"))
    lse_row = tl.where(lse_row == float("-inf"), float("inf"), lse_row * LOG2E)[:, None]  # exp2(s - inf) = 0
    delta_row = tl.load(delta + at, mask=row < T, other=0.0)[:, None]
    q_tile = tile(q + batch * stride_qb + head * stride_qh, first, stride_q, T, D, M, BLOCK_D)
    dy_tile = tile(dy + batch * stride_dyb + head * stride_dyh, first, stride_dy, T, E, M, BLOCK_E)
    sums = tl.full((M, BLOCK_D), 0.0, dtype=tl.float32)
    low, high, rows = low[:, None], high[:, None], row[:, None]
    if WINDOWED or PACKED:  # else every query sees the first key
        sums = _add_to_dq(
            sums, q_tile, dy_tile, k, v, lse_row, delta_row, begin, tl.minimum(whole, end), low, high, rows, mask, T, S,
            scale_log2, stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
        )  # fmt: skip
    sums = _add_to_dq(
        sums, q_tile, dy_tile, k, v, lse_row, delta_row, whole, partial, low, high, rows, mask, T, S,
        scale_log2, stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, False,
    )  # fmt: skip
    sums = _add_to_dq(
        sums, q_tile, dy_tile, k, v, lse_row, delta_row, partial, end, low, high, rows, mask, T, S,
        scale_log2, stride_k, stride_v, mask_row, mask_column, D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
    )  # fmt: skip
    put(dq + batch * stride_dqb + head * stride_dqh, first, stride_dq, T, sums * scale, D, M, BLOCK_D)


@triton.jit
def _add_to_dk_dv(
    dk, dv, k, v, q, dy, lse, delta, first, stop, low, high, column, length, mask, T, S, scale_log2,
    stride_q, stride_dy, mask_row, mask_column,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    MASK: tl.constexpr, CHECKED: tl.constexpr,
):  # fmt: skip
    """All scores are turned: (N keys, M queries)."""
    for i in range(first, stop, M):
        row = i + tl.arange(0, M)
        q_tile = tile(q, i, stride_q, T, D, M, BLOCK_D)
        lse_row = tl.load(lse + row, mask=row < T, other=float("inf"))
        lse_row = tl.where(lse_row == float("-inf"), float("inf"), lse_row * LOG2E)
        rows = row[None, :]
        s = scores(k, q_tile, rows, column, mask, mask_row, mask_column, T, S, scale_log2, MASK, N, M)
        if CHECKED:
            s = tl.where((rows >= low) & (rows < high) & (column < length), s, float("-inf"))
        p = tl.exp2(s - lse_row[None, :])
        dy_tile = tile(dy, i, stride_dy, T, E, M, BLOCK_E)
        dv = gpu.dot(p.to(dy_tile.dtype), dy_tile, dv)
        dp = gpu.dot(v, tl.trans(dy_tile), tl.full((N, M), 0.0, dtype=tl.float32))
        delta_row = tl.load(delta + row, mask=row < T, other=0.0)
        dk = gpu.dot((p * (dp - delta_row[None, :])).to(q_tile.dtype), q_tile, dk)
    return dk, dv


@triton.jit
def gradients_of_keys(
    q, k, v, dy, mask, lengths, starts, ends, lse, delta, dk, dv,
    T, S, heads, group, window, scale, scale_log2,
    stride_qb, stride_qh, stride_q, stride_kb, stride_kh, stride_k, stride_vb, stride_vh, stride_v,
    stride_dyb, stride_dyh, stride_dy, stride_dkb, stride_dkh, stride_dk, stride_dvb, stride_dvh, stride_dv,
    mask_batch, mask_head, mask_row, mask_column,
    D: tl.constexpr, E: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr, LENGTHS: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    blocks = (S + N - 1) // N
    first = tl.program_id(0) % blocks * N
    number = tl.program_id(0) // blocks
    k_heads = heads // group
    batch, k_head = (number // k_heads).to(tl.int64), (number % k_heads).to(tl.int64)
    length = S
    if LENGTHS:
        length = tl.minimum(tl.load(lengths + batch).to(tl.int32), S)

    column = first + tl.arange(0, N)
    last = tl.minimum(first + N, S) - 1
    low, high = queries_of(column, T, S, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    low_first, high_first = queries_of(first, T, S, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    low_last, high_last = queries_of(last, T, S, window, starts, ends, CAUSAL, WINDOWED, PACKED)
    begin, whole, partial, end = phases(low_first, high_first, low_last, high_last, M)
    partial = tl.where(first + N > length, whole, partial)  # some of these keys are not there: check them everywhere
    end = tl.where(first >= length, begin, end)  # none is

    k_tile = tile(k + batch * stride_kb + k_head * stride_kh, first, stride_k, S, D, N, BLOCK_D)
    v_tile = tile(v + batch * stride_vb + k_head * stride_vh, first, stride_v, S, E, N, BLOCK_E)
    dk_sums = tl.full((N, BLOCK_D), 0.0, dtype=tl.float32)
    dv_sums = tl.full((N, BLOCK_E), 0.0, dtype=tl.float32)
    low, high, columns = low[:, None], high[:, None], column[:, None]
    for member in range(group):
        head = k_head * group + member
        q_head = q + batch * stride_qb + head * stride_qh
        dy_head = dy + batch * stride_dyb + head * stride_dyh
        mask_of_head = mask + batch * mask_batch + head * mask_head
        lse_head, delta_head = lse + (batch * heads + head) * T, delta + (batch * heads + head) * T
        if CAUSAL or WINDOWED or PACKED:  # else the first query sees every key
            dk_sums, dv_sums = _add_to_dk_dv(
                dk_sums, dv_sums, k_tile, v_tile, q_head, dy_head, lse_head, delta_head, begin, tl.minimum(whole, end),
                low, high, columns, length, mask_of_head, T, S, scale_log2, stride_q, stride_dy, mask_row, mask_column,
                D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
            )  # fmt: skip
        dk_sums, dv_sums = _add_to_dk_dv(
            dk_sums, dv_sums, k_tile, v_tile, q_head, dy_head, lse_head, delta_head, whole, partial,
            low, high, columns, length, mask_of_head, T, S, scale_log2, stride_q, stride_dy, mask_row, mask_column,
            D, E, M, N, BLOCK_D, BLOCK_E, MASK, False,
        )  # fmt: skip
        dk_sums, dv_sums = _add_to_dk_dv(
            dk_sums, dv_sums, k_tile, v_tile, q_head, dy_head, lse_head, delta_head, partial, end,
            low, high, columns, length, mask_of_head, T, S, scale_log2, stride_q, stride_dy, mask_row, mask_column,
            D, E, M, N, BLOCK_D, BLOCK_E, MASK, True,
        )  # fmt: skip
    put(dk + batch * stride_dkb + k_head * stride_dkh, first, stride_dk, S, dk_sums * scale, D, N, BLOCK_D)
    put(dv + batch * stride_dvb + k_head * stride_dvh, first, stride_dv, S, dv_sums, E, N, BLOCK_E)

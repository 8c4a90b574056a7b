"""The backward kernels: one program for each query block (gradient of q), one for each key block (of k and v).

Both compute the weights again: w_ij = exp(z_ij - lse_i), g_z_ij = w_ij (g_y_i . v_j - inner_i) with
inner_i = g_y_i . y_i - g_lse_i.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.block_sparse_attention._forward_kernel import LOG2_E, list_row, load, padded, pattern, store
from kernels.gpu import dot


def launch_rows(
    q: Tensor, k: Tensor, v: Tensor, g_y: Tensor, lse: Tensor, inner: Tensor, rows: list[Tensor], patterns: Tensor,
    B_h: list[int], scale: float,
) -> Tensor:  # fmt: skip
    g_q = torch.empty_like(q)
    _launch(_rows, q.shape[2], q, k, v, g_y, (g_q,), lse, inner, rows, patterns, B_h, scale)
    return g_q


def launch_columns(
    q: Tensor, k: Tensor, v: Tensor, g_y: Tensor, lse: Tensor, inner: Tensor, columns: list[Tensor], patterns: Tensor,
    B_h: list[int], scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    g_k, g_v = torch.empty_like(k), torch.empty_like(v)
    _launch(_columns, k.shape[2], q, k, v, g_y, (g_k, g_v), lse, inner, columns, patterns, B_h, scale)
    return g_k, g_v


def _launch(kernel, tokens, q, k, v, g_y, results, lse, inner, lists, patterns, B_h, scale) -> None:
    (B, h, T, d), S, e, block = q.shape, k.shape[2], v.shape[3], patterns.shape[-1]
    blocks = triton.cdiv(tokens, block)
    widths = {"D": d, "E": e, "WIDTH": padded(d), "WIDTH_V": padded(e)}
    tile, warps, stages = _tiling(block, max(widths["WIDTH"], widths["WIDTH_V"]), q.element_size())
    kernel[(blocks, B * h)](
        *(q, k, v, g_y, *results, lse, inner, *lists, patterns.view(torch.uint8)),
        *(h, T, S, blocks, scale, scale * LOG2_E),
        BATCHES=B_h[0],
        HEADS=B_h[1],
        PATTERNS=len(patterns) > 0,
        BLOCK=block,
        TILE=tile,
        **widths,
        num_warps=warps,
        num_stages=stages,
    )


def _tiling(block: int, width: int, element_size: int) -> tuple[int, int, int]:
    """(tokens of a listed block that are taken at once, warps, stages)"""
    if element_size == 4 or width > 128:
        return min(block, 16), 4 if block < 128 else 8, 1
    return min(block, 32 if width > 64 else 64), 4 if block < 128 else 8, 2


@triton.jit
def _row_step(
    g_q, q, g, lse, inner, k, v, step, start, entries, kinds, patterns, S, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    keys = tl.load(entries + place).to(tl.int64) * BLOCK + within
    k_tile, v_tile = load(k, keys, S, MASKED, D, WIDTH), load(v, keys, S, MASKED, E, WIDTH_V)
    scores = dot(q, tl.trans(k_tile), tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    if MASKED:
        kept = (keys < S)[None, :]
        if PATTERNS:
            kind = tl.load(kinds + place)
            kept = kept & pattern(kind, patterns, tl.arange(0, BLOCK)[:, None], within[None, :], BLOCK)
        scores = tl.where(kept, scores, float("-inf"))
    weights = tl.math.exp2(scores - lse[:, None])
    g_weights = dot(g, tl.trans(v_tile), tl.zeros((BLOCK, TILE), tl.float32))
    g_scores = weights * (g_weights - inner[:, None])
    return dot(g_scores.to(k_tile.dtype), k_tile, g_q)


@triton.jit
def _rows(
    q, k, v, g_y, g_q, lse, inner, starts, middle, entries, kinds, order, patterns, h, T, S, nq, scale, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    row, block = list_row(bh, h, tl.program_id(0), nq, order, BATCHES, HEADS)
    k += bh * S * D
    v += bh * S * E
    queries = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    q_tile = load(q + bh * T * D, queries, T, True, D, WIDTH)
    g = load(g_y + bh * T * E, queries, T, True, E, WIDTH_V)
    lse_, inner_ = _per_query(lse + bh * T, inner + bh * T, queries, T)
    acc = tl.zeros((BLOCK, WIDTH), tl.float32)
    start, mid, end = tl.load(starts + row), tl.load(middle + row), tl.load(starts + row + 1)
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc = _row_step(
            acc, q_tile, g, lse_, inner_, k, v, step, start, entries, kinds, patterns, S, scale_log2,
            False, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc = _row_step(
            acc, q_tile, g, lse_, inner_, k, v, step, mid, entries, kinds, patterns, S, scale_log2,
            True, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    store(g_q + bh * T * D, acc * scale, queries, T, D, WIDTH)


@triton.jit
def _per_query(lse, inner, queries, T):
    """(lse in base 2, inner). Padding, and queries without any key, get an lse at which all weights are zero."""
    lse_ = tl.load(lse + queries, mask=queries < T, other=float("-inf"))
    lse_ = tl.where(lse_ == float("-inf"), float("inf"), lse_ * 1.4426950408889634)
    return lse_, tl.load(inner + queries, mask=queries < T, other=0.0)


@triton.jit
def _column_step(
    g_k, g_v, k, v, real, q, g_y, lse, inner, step, start, entries, kinds, patterns, T, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    queries = tl.load(entries + place).to(tl.int64) * BLOCK + within
    q_tile, g = load(q, queries, T, MASKED, D, WIDTH), load(g_y, queries, T, MASKED, E, WIDTH_V)
    lse_, inner_ = _per_query(lse, inner, queries, T)
    scores = dot(k, tl.trans(q_tile), tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    if MASKED:
        kept = real[:, None]  # padded queries have no weight anyhow
        if PATTERNS:
            kind = tl.load(kinds + place)
            kept = kept & pattern(kind, patterns, within[None, :], tl.arange(0, BLOCK)[:, None], BLOCK)
        scores = tl.where(kept, scores, float("-inf"))
    weights = tl.math.exp2(scores - lse_[None, :])
    g_v = dot(weights.to(g.dtype), g, g_v)
    g_weights = dot(v, tl.trans(g), tl.zeros((BLOCK, TILE), tl.float32))
    g_scores = weights * (g_weights - inner_[None, :])
    return dot(g_scores.to(q_tile.dtype), q_tile, g_k), g_v


@triton.jit
def _columns(
    q, k, v, g_y, g_k, g_v, lse, inner, starts, middle, entries, kinds, order, patterns, h, T, S, nk,
    scale, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    column, block = list_row(bh, h, tl.program_id(0), nk, order, BATCHES, HEADS)
    q += bh * T * D
    g_y += bh * T * E
    lse += bh * T
    inner += bh * T
    keys = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    k_tile = load(k + bh * S * D, keys, S, True, D, WIDTH)
    v_tile = load(v + bh * S * E, keys, S, True, E, WIDTH_V)
    real = keys < S
    acc_k, acc_v = tl.zeros((BLOCK, WIDTH), tl.float32), tl.zeros((BLOCK, WIDTH_V), tl.float32)
    start, mid, end = tl.load(starts + column), tl.load(middle + column), tl.load(starts + column + 1)
    mid = tl.where((block + 1) * BLOCK > S, start, mid)  # padded keys: all of the list needs a mask
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc_k, acc_v = _column_step(
            acc_k, acc_v, k_tile, v_tile, real, q, g_y, lse, inner, step, start, entries, kinds, patterns, T,
            scale_log2, False, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc_k, acc_v = _column_step(
            acc_k, acc_v, k_tile, v_tile, real, q, g_y, lse, inner, step, mid, entries, kinds, patterns, T,
            scale_log2, True, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    store(g_k + bh * S * D, acc_k * scale, keys, S, D, WIDTH)
    store(g_v + bh * S * E, acc_v, keys, S, E, WIDTH_V)

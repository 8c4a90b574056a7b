"""The backward kernels: one program for each query block (gradient of q), one for each key block (of k and v).

Both compute the weights again: w_ij = exp(z_ij - lse_i), g_z_ij = w_ij (g_y_i . v_j - inner_i) with
inner_i = g_y_i . y_i - g_lse_i.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.block_sparse_attention._forward_kernel import LOG2_E, list_row, mask_of, padded
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
    widths = {"WIDTH": padded(d), "WIDTH_V": padded(e)}
    tile, warps, stages = _tiling(block, max(widths.values()), q.element_size())
    kernel[(blocks, B * h)](
        *(q, k, v, g_y, *results, lse, inner, *lists, patterns.view(torch.uint8)),
        *(h, T, S, d, e, blocks, scale, scale * LOG2_E),
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
def _tile(x, tokens, count, width, WIDTH: tl.constexpr):
    """(tokens, WIDTH) of a (count, width) tensor, zeros beyond it."""
    at = tl.arange(0, WIDTH)
    inside = (tokens < count)[:, None] & (at < width)[None, :]
    return tl.load(x + tokens[:, None] * width + at[None, :], mask=inside, other=0.0)


@triton.jit
def _put(x, tile, tokens, count, width, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    inside = (tokens < count)[:, None] & (at < width)[None, :]
    tl.store(x + tokens[:, None] * width + at[None, :], tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _row_step(
    g_q, q, g, lse, inner, k, v, step, start, entries, kinds, patterns, S, d, e, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    keys = tl.load(entries + place).to(tl.int64) * BLOCK + within
    k_tile, v_tile = _tile(k, keys, S, d, WIDTH), _tile(v, keys, S, e, WIDTH_V)
    scores = dot(q, tl.trans(k_tile), tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    weights = tl.math.exp2(scores - lse[:, None])
    if MASKED:
        kept = mask_of(place, kinds, patterns, tl.arange(0, BLOCK)[:, None], within[None, :], PATTERNS, BLOCK)
        weights = tl.where(kept & (keys < S)[None, :], weights, 0.0)
    g_weights = dot(g, tl.trans(v_tile), tl.zeros((BLOCK, TILE), tl.float32))
    g_scores = weights * (g_weights - inner[:, None])
    return dot(g_scores.to(k_tile.dtype), k_tile, g_q)


@triton.jit
def _rows(
    q, k, v, g_y, g_q, lse, inner, starts, middle, entries, kinds, order, patterns, h, T, S, d, e, nq, scale, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    row, block = list_row(bh, h, tl.program_id(0), nq, order, BATCHES, HEADS)
    k += bh * S * d
    v += bh * S * e
    queries = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    q_tile, g = _tile(q + bh * T * d, queries, T, d, WIDTH), _tile(g_y + bh * T * e, queries, T, e, WIDTH_V)
    lse_, inner_ = _per_query(lse + bh * T, inner + bh * T, queries, T)
    acc = tl.zeros((BLOCK, WIDTH), tl.float32)
    start, mid, end = tl.load(starts + row), tl.load(middle + row), tl.load(starts + row + 1)
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc = _row_step(
            acc, q_tile, g, lse_, inner_, k, v, step, start, entries, kinds, patterns, S, d, e, scale_log2,
            False, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc = _row_step(
            acc, q_tile, g, lse_, inner_, k, v, step, mid, entries, kinds, patterns, S, d, e, scale_log2,
            True, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    _put(g_q + bh * T * d, acc * scale, queries, T, d, WIDTH)


@triton.jit
def _per_query(lse, inner, queries, T):
    """(lse in base 2, inner). Padding, and queries without any key, get an lse at which all weights are zero."""
    lse_ = tl.load(lse + queries, mask=queries < T, other=float("-inf"))
    lse_ = tl.where(lse_ == float("-inf"), float("inf"), lse_ * 1.4426950408889634)
    return lse_, tl.load(inner + queries, mask=queries < T, other=0.0)


@triton.jit
def _column_step(
    g_k, g_v, k, v, q, g_y, lse, inner, step, start, entries, kinds, patterns, T, d, e, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    queries = tl.load(entries + place).to(tl.int64) * BLOCK + within
    q_tile, g = _tile(q, queries, T, d, WIDTH), _tile(g_y, queries, T, e, WIDTH_V)
    lse_, inner_ = _per_query(lse, inner, queries, T)
    scores = dot(k, tl.trans(q_tile), tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    weights = tl.math.exp2(scores - lse_[None, :])
    if MASKED:
        kept = mask_of(place, kinds, patterns, within[None, :], tl.arange(0, BLOCK)[:, None], PATTERNS, BLOCK)
        weights = tl.where(kept, weights, 0.0)
    g_v = dot(weights.to(g.dtype), g, g_v)
    g_weights = dot(v, tl.trans(g), tl.zeros((BLOCK, TILE), tl.float32))
    g_scores = weights * (g_weights - inner_[None, :])
    return dot(g_scores.to(q_tile.dtype), q_tile, g_k), g_v


@triton.jit
def _columns(
    q, k, v, g_y, g_k, g_v, lse, inner, starts, middle, entries, kinds, order, patterns, h, T, S, d, e, nk,
    scale, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    column, block = list_row(bh, h, tl.program_id(0), nk, order, BATCHES, HEADS)
    q += bh * T * d
    g_y += bh * T * e
    lse += bh * T
    inner += bh * T
    keys = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    k_tile, v_tile = _tile(k + bh * S * d, keys, S, d, WIDTH), _tile(v + bh * S * e, keys, S, e, WIDTH_V)
    acc_k, acc_v = tl.zeros((BLOCK, WIDTH), tl.float32), tl.zeros((BLOCK, WIDTH_V), tl.float32)
    start, mid, end = tl.load(starts + column), tl.load(middle + column), tl.load(starts + column + 1)
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc_k, acc_v = _column_step(
            acc_k, acc_v, k_tile, v_tile, q, g_y, lse, inner, step, start, entries, kinds, patterns, T, d, e,
            scale_log2, False, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc_k, acc_v = _column_step(
            acc_k, acc_v, k_tile, v_tile, q, g_y, lse, inner, step, mid, entries, kinds, patterns, T, d, e,
            scale_log2, True, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    _put(g_k + bh * S * d, acc_k * scale, keys, S, d, WIDTH)
    _put(g_v + bh * S * e, acc_v, keys, S, e, WIDTH_V)

"""The forward kernel: one program for each query block of each head."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import dot

LOG2_E = math.log2(math.e)


def launch(
    q: Tensor, k: Tensor, v: Tensor, rows: list[Tensor], patterns: Tensor, B_h: list[int], scale: float
) -> tuple[Tensor, Tensor]:
    (B, h, T, d), S, e, block = q.shape, k.shape[2], v.shape[3], patterns.shape[-1]
    y, lse = q.new_empty(B, h, T, e), q.new_empty(B, h, T, dtype=torch.float32)
    nq = triton.cdiv(T, block)
    widths = {"WIDTH": padded(d), "WIDTH_V": padded(e)}
    tile, warps, stages = tiling(block, max(widths.values()), q.element_size())
    _attend_rows[(nq, B * h)](
        *(q, k, v, y, lse, *rows, patterns.view(torch.uint8)),
        *(h, T, S, d, e, nq, scale * LOG2_E),
        BATCHES=B_h[0],
        HEADS=B_h[1],
        PATTERNS=len(patterns) > 0,
        BLOCK=block,
        TILE=tile,
        **widths,
        num_warps=warps,
        num_stages=stages,
    )
    return y, lse


def padded(width: int) -> int:
    """What the tensor cores take: a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(width))


def tiling(block: int, width: int, element_size: int) -> tuple[int, int, int]:
    """(keys of a block that are taken at once, warps, stages)"""
    if element_size == 4 or width > 128:
        return min(block, 32), 4 if block < 128 else 8, 2
    return min(block, 64), 4 if block < 128 else 8, 3


@triton.jit
def mask_of(list_place, kinds, patterns, row_in_block, column_in_block, PATTERNS: tl.constexpr, BLOCK: tl.constexpr):
    """Which elements of a listed block are kept: rows and columns are those of its pattern, as index tiles."""
    kept = (row_in_block >= 0) & (column_in_block >= 0)
    if PATTERNS:
        kind = tl.load(kinds + list_place).to(tl.int64)
        at = patterns + kind * BLOCK * BLOCK + row_in_block * BLOCK + column_in_block
        kept = tl.load(at, mask=kept & (kind >= 0), other=1) != 0
    return kept


@triton.jit
def list_row(bh, h, place, blocks, order, BATCHES: tl.constexpr, HEADS: tl.constexpr):
    """(the list's number, the block) of the place-th longest list of a head; lists may serve all samples or heads."""
    of_head = 0
    if BATCHES > 1:
        of_head += (bh // h) * HEADS
    if HEADS > 1:
        of_head += bh % h
    block = tl.load(order + of_head * blocks + place)
    return of_head * blocks + block, block


@triton.jit
def _take_tile(
    acc, top, total, q, k, v, step, start, entries, kinds, patterns, S, d, e, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One step of the running softmax: TILE keys of one listed block."""
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    keys = tl.load(entries + place).to(tl.int64) * BLOCK + within
    at, at_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    valid = keys < S
    k_tile = tl.load(k + keys[None, :] * d + at[:, None], mask=valid[None, :] & (at < d)[:, None], other=0.0)
    scores = dot(q, k_tile, tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    if MASKED:
        kept = mask_of(place, kinds, patterns, tl.arange(0, BLOCK)[:, None], within[None, :], PATTERNS, BLOCK)
        scores = tl.where(kept & valid[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)  # no key yet
    weights = tl.math.exp2(scores - base[:, None])
    shrink = tl.math.exp2(top - base)
    v_tile = tl.load(v + keys[:, None] * e + at_v[None, :], mask=valid[:, None] & (at_v < e)[None, :], other=0.0)
    acc = dot(weights.to(v_tile.dtype), v_tile, acc * shrink[:, None])
    return acc, new_top, total * shrink + tl.sum(weights, 1)


@triton.jit
def _attend_rows(
    q, k, v, y, lse, starts, middle, entries, kinds, order, patterns, h, T, S, d, e, nq, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    row, block = list_row(bh, h, tl.program_id(0), nq, order, BATCHES, HEADS)
    k += bh * S * d
    v += bh * S * e
    queries = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at, at_v = tl.arange(0, WIDTH), tl.arange(0, WIDTH_V)
    real = queries < T
    q_tile = tl.load(
        q + (bh * T + queries)[:, None] * d + at[None, :], mask=real[:, None] & (at < d)[None, :], other=0.0
    )
    acc = tl.zeros((BLOCK, WIDTH_V), tl.float32)
    top = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    start, mid, end = tl.load(starts + row), tl.load(middle + row), tl.load(starts + row + 1)
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc, top, total = _take_tile(
            acc, top, total, q_tile, k, v, step, start, entries, kinds, patterns, S, d, e, scale_log2,
            False, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc, top, total = _take_tile(
            acc, top, total, q_tile, k, v, step, mid, entries, kinds, patterns, S, d, e, scale_log2,
            True, PATTERNS, BLOCK, TILE, WIDTH, WIDTH_V,
        )  # fmt: skip
    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)[:, None]
    tl.store(
        y + (bh * T + queries)[:, None] * e + at_v[None, :],
        acc.to(y.dtype.element_ty),
        mask=real[:, None] & (at_v < e)[None, :],
    )
    natural = (top + tl.math.log2(tl.where(empty, 1.0, total))) * 0.6931471805599453  # top is -inf where empty
    tl.store(lse + bh * T + queries, natural, mask=real)

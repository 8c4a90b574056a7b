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
    widths = {"D": d, "E": e, "WIDTH": padded(d), "WIDTH_V": padded(e)}
    tile, warps, stages = tiling(block, max(widths["WIDTH"], widths["WIDTH_V"]), q.element_size())
    _attend_rows[(nq, B * h)](
        *(q, k, v, y, lse, *rows, patterns.view(torch.uint8)),
        *(h, T, S, nq, scale * LOG2_E),
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
    if block < 128:  # with two stages the memory of a multiprocessor holds two programs of four warps
        return min(block, 64), 4, 2 if width > 64 else 3
    return 64, 8, 3


@triton.jit
def load(x, tokens, count, CHECK: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """(tokens, WIDTH) of a (count, D) tensor, zeros beyond it; without CHECK no token is."""
    at = tl.arange(0, WIDTH)
    places = x + tokens[:, None] * D + at[None, :]
    if CHECK:
        tile = tl.load(places, mask=(tokens < count)[:, None] & (at < D)[None, :], other=0.0)
    elif D < WIDTH:
        tile = tl.load(places, mask=(at < D)[None, :], other=0.0)
    else:
        tile = tl.load(places)
    return tile


@triton.jit
def store(x, tile, tokens, count, D: tl.constexpr, WIDTH: tl.constexpr):
    at = tl.arange(0, WIDTH)
    inside = (tokens < count)[:, None] & (at < D)[None, :]
    tl.store(x + tokens[:, None] * D + at[None, :], tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def pattern(kind, patterns, row, column, BLOCK: tl.constexpr):
    """Which elements of a block of this kind are kept, for index tiles of rows and columns within the block."""
    places = patterns + tl.maximum(kind, 0).to(tl.int64) * BLOCK * BLOCK + row * BLOCK + column
    return (tl.load(places) != 0) | (kind < 0)


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
    acc, top, total, q, k, v, step, start, entries, kinds, patterns, S, scale_log2,
    MASKED: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    """One step of the running softmax: TILE keys of one listed block."""
    place = start + step // (BLOCK // TILE)
    within = (step % (BLOCK // TILE)) * TILE + tl.arange(0, TILE)
    keys = tl.load(entries + place).to(tl.int64) * BLOCK + within
    k_tile = load(k, keys, S, MASKED, D, WIDTH)
    scores = dot(q, tl.trans(k_tile), tl.zeros((BLOCK, TILE), tl.float32)) * scale_log2
    if MASKED:
        kept = (keys < S)[None, :]
        if PATTERNS:
            kind = tl.load(kinds + place)
            kept = kept & pattern(kind, patterns, tl.arange(0, BLOCK)[:, None], within[None, :], BLOCK)
        scores = tl.where(kept, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    base = tl.where(new_top == float("-inf"), 0.0, new_top)  # no key yet
    weights = tl.math.exp2(scores - base[:, None])
    shrink = tl.math.exp2(top - base)
    v_tile = load(v, keys, S, MASKED, E, WIDTH_V)
    acc = dot(weights.to(v_tile.dtype), v_tile, acc * shrink[:, None])
    return acc, new_top, total * shrink + tl.sum(weights, 1)


@triton.jit
def _attend_rows(
    q, k, v, y, lse, starts, middle, entries, kinds, order, patterns, h, T, S, nq, scale_log2,
    BATCHES: tl.constexpr, HEADS: tl.constexpr, PATTERNS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(1).to(tl.int64)
    row, block = list_row(bh, h, tl.program_id(0), nq, order, BATCHES, HEADS)
    k += bh * S * D
    v += bh * S * E
    queries = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    q_tile = load(q + bh * T * D, queries, T, True, D, WIDTH)
    acc = tl.zeros((BLOCK, WIDTH_V), tl.float32)
    top = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    start, mid, end = tl.load(starts + row), tl.load(middle + row), tl.load(starts + row + 1)
    for step in range(0, (mid - start) * (BLOCK // TILE)):
        acc, top, total = _take_tile(
            acc, top, total, q_tile, k, v, step, start, entries, kinds, patterns, S, scale_log2,
            False, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    for step in range(0, (end - mid) * (BLOCK // TILE)):
        acc, top, total = _take_tile(
            acc, top, total, q_tile, k, v, step, mid, entries, kinds, patterns, S, scale_log2,
            True, PATTERNS, BLOCK, TILE, D, E, WIDTH, WIDTH_V,
        )  # fmt: skip
    empty = total == 0.0
    store(y + bh * T * E, acc / tl.where(empty, 1.0, total)[:, None], queries, T, E, WIDTH_V)
    natural = (top + tl.math.log2(tl.where(empty, 1.0, total))) * 0.6931471805599453  # top is -inf where empty
    tl.store(lse + bh * T + queries, natural, mask=queries < T)

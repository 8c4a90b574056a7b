"""What the Triton kernels of attention share: tiles of a matrix, and which keys a query sees.

Without the caller's mask, the keys that a query sees are an interval, and both of its ends rise with the query; so do
those of the queries that see a key. A block of queries therefore meets one range of keys, in the middle of which
nothing is to be checked, and skips all other blocks.
"""

import triton
import triton.language as tl

from kernels import gpu

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NO_MASK, BOOLEAN, ADDED = (tl.constexpr(kind) for kind in range(3))


@triton.jit
def tile(base, first, stride, count, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows first, first + 1, ... of a matrix (count, WIDTH), with zeros around it."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    inside = (first + row < count) & (column < WIDTH)
    return tl.load(base + tl.cast(first, tl.int64) * stride + row * stride + column, mask=inside, other=0.0)


@triton.jit
def put(base, first, stride, count, x, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The counterpart of `tile`."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    inside = (first + row < count) & (column < WIDTH)
    at = base + tl.cast(first, tl.int64) * stride + row * stride + column
    tl.store(at, x.to(base.dtype.element_ty), mask=inside)


@triton.jit
def keys_of(
    row, T, S, length, window, starts, ends, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr
):
    """[low, high): the keys that these queries see, `length` keys being there."""
    aligned = row + S - T
    low = aligned * 0
    high = low + length
    if CAUSAL:
        high = tl.minimum(high, aligned + 1)
    if WINDOWED:
        low = tl.maximum(low, aligned - window)
        if not CAUSAL:
            high = tl.minimum(high, aligned + window + 1)
    if PACKED:
        low = tl.maximum(low, tl.load(starts + row, mask=row < T, other=0))
        high = tl.minimum(high, tl.load(ends + row, mask=row < T, other=0))
    return low, high


@triton.jit
def queries_of(column, T, S, window, starts, ends, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr):
    """[low, high): the queries that see these keys, if they are there."""
    aligned = column - S + T
    low = aligned * 0
    high = low + T
    if CAUSAL:
        low = tl.maximum(low, aligned)
    if WINDOWED:
        high = tl.minimum(high, aligned + window + 1)
        if not CAUSAL:
            low = tl.maximum(low, aligned - window)
    if PACKED:
        low = tl.maximum(low, tl.load(starts + column, mask=column < S, other=0))
        high = tl.minimum(high, tl.load(ends + column, mask=column < S, other=0))
    return low, high


@triton.jit
def phases(low_first, high_first, low_last, high_last, BLOCK: tl.constexpr):
    """(begin, whole, partial, end) for the intervals of the first and the last row of a block.

    Blocks that start in [begin, whole) need a check, those in [whole, partial) are seen in full by every row, those in
    [partial, end) need a check again.
    """
    begin = low_first // BLOCK * BLOCK
    end = tl.maximum(high_last, begin)
    whole = tl.minimum((low_last + BLOCK - 1) // BLOCK * BLOCK, (end + BLOCK - 1) // BLOCK * BLOCK)
    whole = tl.maximum(whole, begin)
    partial = tl.maximum(high_first // BLOCK * BLOCK, whole)
    return begin, whole, partial, end


@triton.jit
def scores(
    a,
    b,
    row,
    column,
    mask,
    mask_row,
    mask_column,
    T,
    S,
    scale_log2,
    MASK: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """Scores a b^T in units of log 2, with the caller's mask. row, column: which ones, (M, 1) and (1, N) or turned."""
    s = gpu.dot(a, tl.trans(b), tl.full((M, N), 0.0, dtype=tl.float32)) * scale_log2
    if MASK != NO_MASK:
        at = mask + row.to(tl.int64) * mask_row + column.to(tl.int64) * mask_column
        given = tl.load(at, mask=(row < T) & (column < S), other=0)
        if MASK == BOOLEAN:
            s = tl.where(given != 0, s, float("-inf"))
        else:
            s += given.to(tl.float32) * LOG2E
    return s

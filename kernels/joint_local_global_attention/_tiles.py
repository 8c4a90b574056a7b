"""What the Triton kernels of this op share: loading tiles, the roots of the weights, and the linear part's states.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e of a value; N spans (of tokens) of a sequence.
"""

import triton
import triton.language as tl

from kernels.gpu import dot


@triton.jit
def load(pointer, rows, n_rows, row_stride, columns, n_columns):
    """The tile (rows, columns) of a matrix, with zeros beyond its n_rows and n_columns.

    Offsets are 32 bits wide, to spare registers: the pointer is to be near.
    """
    inside = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
    return tl.load(pointer + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store(pointer, tile, rows, n_rows, row_stride, columns, n_columns):
    """Writes `load`'s tile."""
    inside = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
    address = pointer + rows[:, None] * row_stride + columns[None, :]
    tl.store(address, tile.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def roots(scores, query, key, chunk, SEED, dropout, P, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr):
    """r >= 0 of the weights A = (1 - dropout) r^2, for scores q k^T; dA/dr = 2 (1 - dropout) r / (1 - dropout) = 2 r.

    query, key: positions in the chunk that broadcast to the scores, in either order. What is dropped depends on
    (seed, chunk, query, key) alone, so that forward and backward drop the same.
    """
    r = tl.maximum(scores / P, 0.0)
    if CAUSAL:
        r = tl.where(key <= query, r, 0.0)
    if DROPOUT:
        drawn = tl.rand(tl.load(SEED) + chunk, query * P + key)
        r = tl.where(drawn < dropout, 0.0, r / (1.0 - dropout))
    return r


@triton.jit
def moments(
    K, X, PARTIAL, x_row, S, SPAN, N, e,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """PARTIAL (B, N, d, e) = K^T X over each span. Grid: (B N, blocks of e)."""
    part = tl.program_id(0)
    batch, span = part // N, part % N
    first = batch.to(tl.int64) * S + span * SPAN
    tokens = tl.minimum(SPAN, S - span * SPAN)
    row, d = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    column = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    total = tl.zeros((BLOCK_D, BLOCK_E), tl.float32)
    for start in range(0, tokens, BLOCK_S):
        k = load(K + (first + start) * D, row, tokens - start, D, d, D)
        x = load(X + (first + start) * x_row, row, tokens - start, x_row, column, e)
        total = dot(tl.trans(k), x, total)
    store(PARTIAL + part.to(tl.int64) * D * e, total, d, D, e, column, e)


@triton.jit
def sum_spans(
    PARTIAL, STATE, scale, N, size,
    CAUSAL: tl.constexpr, REVERSE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds up (B, N, size) over the spans, one after the other; a fixed order gives the same sum every time.

    STATE is (B, size), or if CAUSAL (B, N, size): of the spans before each (REVERSE: after it).
    Grid: (blocks of size, B).
    """
    batch = tl.program_id(1).to(tl.int64)
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(0, N):
        at = (batch * N + (N - 1 - i if REVERSE else i)) * size + offset
        if CAUSAL:
            tl.store(STATE + at, (scale * total).to(STATE.dtype.element_ty), mask=inside)
        total += tl.load(PARTIAL + at, mask=inside, other=0.0)
    if not CAUSAL:
        tl.store(STATE + batch * size + offset, (scale * total).to(STATE.dtype.element_ty), mask=inside)

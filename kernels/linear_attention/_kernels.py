"""The Triton kernels of linear attention; triton.py says how they make it up.

A program has one of N heads, one chunk of tokens and one block of the columns that it writes.
"""

import triton
import triton.language as tl

from kernels import gpu


@triton.jit
def _load(pointer, row, column, rows, columns):
    """A tile of a (rows, columns) matrix, zero outside."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0.0)


@triton.jit
def _store(pointer, row, column, rows, columns, x):
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(pointer + row.to(tl.int64)[:, None] * columns + column[None, :], x, mask=inside)


@triton.jit
def _own(scores, CHUNK: tl.constexpr, REVERSE: tl.constexpr):
    """The scores of a chunk with itself: of each token with those up to it (from it on, in reverse)."""
    i = tl.arange(0, CHUNK)
    return tl.where(i[:, None] <= i[None, :] if REVERSE else i[:, None] >= i[None, :], scores, 0.0)


@triton.jit
def states(
    x_, y_, row_, sums_, vectors_, T, m, e, span,
    WEIGHTED: tl.constexpr, CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """sums (m, e) of x_t^T y_t and vectors (m,) of x_t, or row_t x_t, over each `span` of tokens."""
    head, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks = tl.cdiv(e, BLOCK_E)
    f = tl.program_id(2) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(2) % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    acc = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    vector = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(chunk * span, tl.minimum(chunk * span + span, T), CHUNK):
        t = start + tl.arange(0, CHUNK)
        x = _load(x_ + head * T * m, t, f, T, m)
        y = _load(y_ + head * T * e, t, c, T, e)
        acc = gpu.dot(tl.trans(x), y, acc)
        weighted = x.to(tl.float32)
        if WEIGHTED:
            weighted = weighted * tl.load(row_ + head * T + t, mask=t < T, other=0.0)[:, None]
        vector += tl.sum(weighted, axis=0)
    place = head * tl.num_programs(1) + chunk
    _store(sums_ + place * m * e, f, c, m, e, acc)
    if tl.program_id(2) % blocks == 0:
        tl.store(vectors_ + place * m + f, vector, mask=f < m)


@triton.jit
def exclusive_sums(values_, chunks, size, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    """Replaces each of `chunks` rows of `size` numbers by the sum of the rows before it (after it, in reverse)."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head = tl.program_id(0).to(tl.int64)
    carry = tl.zeros((BLOCK,), tl.float32)
    for step in range(0, chunks):
        chunk = chunks - 1 - step if REVERSE else step
        place = values_ + (head * chunks + chunk) * size + i
        value = tl.load(place, mask=i < size, other=0.0)
        tl.store(place, carry, mask=i < size)
        carry += value


@triton.jit
def attend(
    x_, y_, w_, sums_, vectors_, total_, out_, T, m, e, chunks,
    NORMALIZE: tl.constexpr, CAUSAL: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out_i = x_i (sums + sum_j y_j^T w_j), j in i's chunk where causal; divided by x_i . (vectors + sum_j y_j)."""
    head, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    c = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    place = head * chunks + (chunk if CAUSAL else 0)
    acc = tl.zeros((CHUNK, BLOCK_E), tl.float32)
    scores = tl.zeros((CHUNK, CHUNK), tl.float32)
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(0, m, BLOCK_M):
        f = start + tl.arange(0, BLOCK_M)
        x = _load(x_ + head * T * m, t, f, T, m)
        state = _load(sums_ + place * m * e, f, c, m, e)
        acc = tl.dot(x.to(tl.float32), state, acc, input_precision=PRECISION)
        if CAUSAL:
            scores = gpu.dot(x, tl.trans(_load(y_ + head * T * m, t, f, T, m)), scores)
        if NORMALIZE:
            vector = tl.load(vectors_ + place * m + f, mask=f < m, other=0.0)
            total += tl.sum(x.to(tl.float32) * vector[None, :], axis=1)
    if CAUSAL:
        scores = _own(scores, CHUNK, REVERSE)
        w = _load(w_ + head * T * e, t, c, T, e)
        acc = gpu.dot(scores.to(w.dtype), w, acc)
        total += tl.sum(scores, axis=1)
    if NORMALIZE:
        total = tl.where(total == 0, float("inf"), total)
        acc = acc / total[:, None]
        if tl.program_id(2) == 0:
            tl.store(total_ + head * T + t, total, mask=t < T)
    _store(out_ + head * T * e, t, c, T, e, acc)


@triton.jit
def attend_backward(
    x_, y_, w_, sums_, vectors_, row_, total_, out_, T, m, e, chunks,
    NORMALIZE: tl.constexpr, CAUSAL: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """The gradient of q (x, y, w = g, v, k), or in reverse that of k (v, g, p): out_i = sum_j (x_i . y_j - row) w_j.

    sums is (m, e) as in forward, applied from its other side; `row` belongs to the queries: i, or in reverse j.
    """
    head, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    f = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    place = head * chunks + (chunk if CAUSAL else 0)
    acc = tl.zeros((CHUNK, BLOCK_M), tl.float32)
    scores = tl.zeros((CHUNK, CHUNK), tl.float32)
    for start in range(0, e, BLOCK_E):
        c = start + tl.arange(0, BLOCK_E)
        x = _load(x_ + head * T * e, t, c, T, e)
        state = _load(sums_ + place * m * e, f, c, m, e)
        acc = tl.dot(x.to(tl.float32), tl.trans(state), acc, input_precision=PRECISION)
        if CAUSAL:
            scores = gpu.dot(x, tl.trans(_load(y_ + head * T * e, t, c, T, e)), scores)
    if NORMALIZE:
        vector = tl.load(vectors_ + place * m + f, mask=f < m, other=0.0)
        if REVERSE:  # the row of each query is in the vectors already
            acc -= vector[None, :]
        else:
            row = tl.load(row_ + head * T + t, mask=t < T, other=0.0)
            acc -= row[:, None] * vector[None, :]
    if CAUSAL:
        if NORMALIZE:
            row = tl.load(row_ + head * T + t, mask=t < T, other=0.0)
            scores -= row[None, :] if REVERSE else row[:, None]
        w = _load(w_ + head * T * m, t, f, T, m)
        acc = gpu.dot(_own(scores, CHUNK, REVERSE).to(w.dtype), w, acc)
    if NORMALIZE and not REVERSE:
        acc = acc / tl.load(total_ + head * T + t, mask=t < T, other=1.0)[:, None]
    _store(out_ + head * T * m, t, f, T, m, acc)

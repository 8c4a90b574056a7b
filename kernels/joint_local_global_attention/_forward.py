"""The forward kernel: a program takes some queries of a chunk, computes their weights once and then goes through the
values of both streams, adding the linear part to each block of them. The weights never leave the chip.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e of a value.
"""

import triton
import triton.language as tl

from kernels.gpu import dot
from kernels.joint_local_global_attention._tiles import load, roots, store


@triton.jit
def attend(
    QL, KL, QG, V, U, STATE_V, STATE_U, OUT_V, OUT_U, SEED, dropout, v_row, u_row, S, P, C, e1, e2,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """OUT = A X + Q' STATE for both streams. Grid: (B C blocks of queries, SPLITS); a split takes every SPLITS-th block
    of values, for inputs of few chunks."""
    per_chunk = tl.cdiv(P, BLOCK_Q)
    chunk = tl.program_id(0) // per_chunk  # of all B C
    batch, c = chunk // C, chunk % C
    first, tokens = batch.to(tl.int64) * S + c * P, tl.minimum(P, S - c * P)
    state = chunk.to(tl.int64) * D if CAUSAL else batch.to(tl.int64) * D  # rows of STATE before this one's
    query = (tl.program_id(0) % per_chunk) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    key, d = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)

    q = load(QL + first * D, query, tokens, D, d, D)
    k = load(KL + first * D, key, tokens, D, d, D)
    scores = dot(q, tl.trans(k), tl.zeros((BLOCK_Q, BLOCK_P), tl.float32))
    r = roots(scores, query[:, None], key[None, :], chunk, SEED, dropout, P, CAUSAL, DROPOUT)
    weights = r * r
    if DROPOUT:
        weights *= 1.0 - dropout
    weights = weights.to(q.dtype)
    qg = load(QG + first * D, query, tokens, D, d, D)
    split = tl.program_id(1)
    _attend_stream(
        weights, qg, V + first * v_row, STATE_V + state * e1, OUT_V + first * e1, v_row, e1, split,
        query, key, d, tokens, D, SPLITS, BLOCK_Q, BLOCK_E,
    )  # fmt: skip
    _attend_stream(
        weights, qg, U + first * u_row, STATE_U + state * e2, OUT_U + first * e2, u_row, e2, split,
        query, key, d, tokens, D, SPLITS, BLOCK_Q, BLOCK_E,
    )  # fmt: skip


@triton.jit
def _attend_stream(
    weights, qg, X, STATE, OUT, x_row, e, split, query, key, d, tokens,
    D: tl.constexpr, SPLITS: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """The values of one stream, block by block."""
    for start in range(split * BLOCK_E, e, SPLITS * BLOCK_E):
        column = start + tl.arange(0, BLOCK_E)
        x = load(X, key, tokens, x_row, column, e)
        state = load(STATE, d, D, e, column, e)
        y = dot(weights, x, tl.zeros((BLOCK_Q, BLOCK_E), tl.float32))
        y = dot(qg, state, y)
        store(OUT, y, query, tokens, e, column, e)

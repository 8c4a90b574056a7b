"""The backward kernels: one by queries (of q and q'), one by keys (of k, k', v and u). Both compute the weights again.

With g the upstream gradient of an output, summed over both streams where x stands for either:
dA = g x^T, ds = 2 r dA / P, dq = ds k, dk = ds^T q, dx = A^T g + k' dstate, dq' = g state^T, dk' = x dstate^T.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e of a value.
"""

import triton
import triton.language as tl

from kernels.gpu import dot
from kernels.joint_local_global_attention._tiles import load, roots, store


@triton.jit
def by_queries(
    QL, KL, V, U, STATE_V, STATE_U, G_V, G_U, D_QL, D_QG, SEED, dropout, v_row, u_row, gv_row, gu_row, S, P, C, e1, e2,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """D_QL and D_QG. Grid: (B C blocks of queries,)."""
    per_chunk = tl.cdiv(P, BLOCK_Q)
    chunk = tl.program_id(0) // per_chunk
    batch, c = chunk // C, chunk % C
    first, tokens = batch.to(tl.int64) * S + c * P, tl.minimum(P, S - c * P)
    state = chunk.to(tl.int64) * D if CAUSAL else batch.to(tl.int64) * D
    query = (tl.program_id(0) % per_chunk) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    key, d = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)

    d_weights = tl.zeros((BLOCK_Q, BLOCK_P), tl.float32)
    d_qg = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    d_weights, d_qg = _queries_stream(
        d_weights, d_qg, V + first * v_row, STATE_V + state * e1, G_V + first * gv_row, v_row, gv_row, e1,
        query, key, d, tokens, D, BLOCK_E,
    )  # fmt: skip
    d_weights, d_qg = _queries_stream(
        d_weights, d_qg, U + first * u_row, STATE_U + state * e2, G_U + first * gu_row, u_row, gu_row, e2,
        query, key, d, tokens, D, BLOCK_E,
    )  # fmt: skip
    store(D_QG + first * D, d_qg, query, tokens, D, d, D)

    q = load(QL + first * D, query, tokens, D, d, D)
    k = load(KL + first * D, key, tokens, D, d, D)
    scores = dot(q, tl.trans(k), tl.zeros((BLOCK_Q, BLOCK_P), tl.float32))
    r = roots(scores, query[:, None], key[None, :], chunk, SEED, dropout, P, CAUSAL, DROPOUT)
    d_q = dot((r * d_weights).to(k.dtype), k, tl.zeros((BLOCK_Q, BLOCK_D), tl.float32))
    store(D_QL + first * D, 2.0 / P * d_q, query, tokens, D, d, D)


@triton.jit
def _queries_stream(
    d_weights, d_qg, X, STATE, G, x_row, g_row, e, query, key, d, tokens, D: tl.constexpr, BLOCK_E: tl.constexpr
):
    """What one stream adds to the gradients of the weights and of q'."""
    for start in range(0, e, BLOCK_E):
        column = start + tl.arange(0, BLOCK_E)
        g = load(G, query, tokens, g_row, column, e)
        x = load(X, key, tokens, x_row, column, e)
        state = load(STATE, d, D, e, column, e)
        d_weights = dot(g, tl.trans(x), d_weights)
        d_qg = dot(g, tl.trans(state), d_qg)
    return d_weights, d_qg


@triton.jit
def by_keys(
    QL, KL, KG, V, U, D_STATE_V, D_STATE_U, G_V, G_U, D_KL, D_KG, D_V, D_U, SEED, dropout,
    v_row, u_row, gv_row, gu_row, S, P, C, e1, e2,
    D: tl.constexpr, CAUSAL: tl.constexpr, DROPOUT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """D_KL, D_KG, D_V and D_U; tiles of weights are (keys, queries) here. Grid: (B C blocks of keys,)."""
    per_chunk = tl.cdiv(P, BLOCK_K)
    chunk = tl.program_id(0) // per_chunk
    batch, c = chunk // C, chunk % C
    first, tokens = batch.to(tl.int64) * S + c * P, tl.minimum(P, S - c * P)
    state = chunk.to(tl.int64) * D if CAUSAL else batch.to(tl.int64) * D
    key = (tl.program_id(0) % per_chunk) * BLOCK_K + tl.arange(0, BLOCK_K)
    query, d = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)

    k = load(KL + first * D, key, tokens, D, d, D)
    q = load(QL + first * D, query, tokens, D, d, D)
    scores = dot(k, tl.trans(q), tl.zeros((BLOCK_K, BLOCK_P), tl.float32))
    r = roots(scores, query[None, :], key[:, None], chunk, SEED, dropout, P, CAUSAL, DROPOUT)
    weights = r * r
    if DROPOUT:
        weights *= 1.0 - dropout
    weights = weights.to(k.dtype)
    kg = load(KG + first * D, key, tokens, D, d, D)

    d_weights = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    d_kg = tl.zeros((BLOCK_K, BLOCK_D), tl.float32)
    d_weights, d_kg = _keys_stream(
        d_weights, d_kg, weights, kg, V + first * v_row, D_STATE_V + state * e1, G_V + first * gv_row,
        D_V + first * e1, v_row, gv_row, e1, query, key, d, tokens, D, BLOCK_K, BLOCK_E,
    )  # fmt: skip
    d_weights, d_kg = _keys_stream(
        d_weights, d_kg, weights, kg, U + first * u_row, D_STATE_U + state * e2, G_U + first * gu_row,
        D_U + first * e2, u_row, gu_row, e2, query, key, d, tokens, D, BLOCK_K, BLOCK_E,
    )  # fmt: skip
    store(D_KG + first * D, d_kg, key, tokens, D, d, D)

    q = load(QL + first * D, query, tokens, D, d, D)  # q and r again: kept, they would take the loops' registers
    scores = dot(k, tl.trans(q), tl.zeros((BLOCK_K, BLOCK_P), tl.float32))
    r = roots(scores, query[None, :], key[:, None], chunk, SEED, dropout, P, CAUSAL, DROPOUT)
    d_k = dot((r * d_weights).to(q.dtype), q, tl.zeros((BLOCK_K, BLOCK_D), tl.float32))
    store(D_KL + first * D, 2.0 / P * d_k, key, tokens, D, d, D)


@triton.jit
def _keys_stream(
    d_weights, d_kg, weights, kg, X, D_STATE, G, D_X, x_row, g_row, e, query, key, d, tokens,
    D: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """What one stream adds to the gradients of the weights and of k'; writes that of its values."""
    for start in range(0, e, BLOCK_E):
        column = start + tl.arange(0, BLOCK_E)
        g = load(G, query, tokens, g_row, column, e)
        x = load(X, key, tokens, x_row, column, e)
        d_state = load(D_STATE, d, D, e, column, e)
        d_x = dot(weights, g, tl.zeros((BLOCK_K, BLOCK_E), tl.float32))
        d_x = dot(kg, d_state, d_x)
        store(D_X, d_x, key, tokens, e, column, e)
        d_weights = dot(x, tl.trans(g), d_weights)
        d_kg = dot(x, tl.trans(d_state), d_kg)
    return d_weights, d_kg

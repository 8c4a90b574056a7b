"""Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), with the options that models ask for.

Sliding windows: Longformer (Beltagy et al. 2020, arXiv 2004.05150, sec. 3.1). Grouped heads: GQA (Ainslie et al. 2023,
arXiv 2305.13245).
"""

from torch import Tensor

from kernels.registry import call


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    key_lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale * q k^T + mask) v, for each head.

    q: (B, h, T, d), k: (B, g, S, d), v: (B, g, S, e) -> (B, h, T, e), all of one dtype. g divides h: query head i uses
    the keys and values of head i // (h / g).
    mask: broadcastable to (B, h, T, S); boolean (True = may attend) or of q's dtype and added to the scores.
    causal: query i sees the keys j <= i + S - T, that is, the last query sees all keys. May be combined with `mask`, as
    all that follows.
    window: query i sees the keys at a distance of at most `window` from i + S - T, on either side (causal: the left).
    key_lengths: (B,) integers; in sequence b the keys j >= key_lengths[b] do not exist (padding).
    cu_seqlens: (n + 1,) int32, rising from 0: n sequences packed into one of T = S tokens, B = 1; sequence i is the
    tokens cu_seqlens[i] to cu_seqlens[i + 1] - 1, which attend to each other only. Tokens after the last sequence are
    padding.
    scale: d ** -0.5 where None. dropout: probability that a weight is set to zero (0 outside training).
    A query that may attend to nothing gets zeros.
    return_lse: gives (y, lse) with lse the natural logarithm of the sum over the keys of exp(scale * q k^T + mask):
    (B, h, T) in float32 (float64 for float64), -inf for a query that may attend to nothing. Differentiable as y is.
    """
    of_q, of_k, of_v = q.shape, k.shape, v.shape
    if of_k[-2] != of_v[-2] or of_q[-1] != of_k[-1]:
        raise ValueError(
            f"attention: q {tuple(of_q)}, k {tuple(of_k)}, v {tuple(of_v)} do not fit:"
            " q and k must have the same last size, k and v the same number of tokens"
        )
    if of_q[1] != of_k[1] and (of_q[1] % of_k[1] or of_k[1] != of_v[1]):
        raise ValueError(
            f"attention: {of_k[1]} key heads and {of_v[1]} value heads for {of_q[1]} query heads:"
            " k and v must have the same number of heads, one that divides q's"
        )
    if window is not None and window < 0:
        raise ValueError(f"attention: window={window} must be 0 (a query sees its own position only) or more, or None")
    if key_lengths is not None and (key_lengths.shape != q.shape[:1] or key_lengths.is_floating_point()):
        raise ValueError(
            f"attention: key_lengths {tuple(key_lengths.shape)} of {key_lengths.dtype} must be one integer for each of"
            f" the {q.shape[0]} sequences"
        )
    if cu_seqlens is not None:
        _check_packed(q, k, cu_seqlens)
    return call(
        "attention",
        q,
        k,
        v,
        mask=mask,
        causal=causal,
        window=window,
        key_lengths=key_lengths,
        cu_seqlens=cu_seqlens,
        scale=scale,
        dropout=dropout,
        return_lse=return_lse,
    )


def _check_packed(q: Tensor, k: Tensor, cu_seqlens: Tensor) -> None:
    if q.shape[0] != 1 or q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"attention: with cu_seqlens, q {tuple(q.shape)} and k {tuple(k.shape)} must be one sequence (B = 1) of"
            " as many queries as keys"
        )
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.is_floating_point():
        raise ValueError(
            f"attention: cu_seqlens {tuple(cu_seqlens.shape)} of {cu_seqlens.dtype} must be the n + 1 integer"
            " boundaries of n sequences"
        )

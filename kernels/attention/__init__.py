"""Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, eq. 1). A Triton version would be triton.py."""

from torch import Tensor

from kernels.registry import call


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(scale * q k^T + mask) v, for each head.

    q: (B, h, T, d), k: (B, h, S, d), v: (B, h, S, e) -> (B, h, T, e), all of one dtype.
    mask: broadcastable to (B, h, T, S); boolean (True = may attend) or of q's dtype and added to the scores.
    causal: query i sees the keys j <= i + S - T, that is, the last query sees all keys. May be combined with `mask`.
    scale: d ** -0.5 where None. dropout: probability that a weight is set to zero (0 outside training).
    A query that may attend to nothing gets zeros.
    """
    if k.shape[-2] != v.shape[-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit:"
            " q and k must have the same last size, k and v the same number of tokens"
        )
    return call("attention", q, k, v, mask=mask, causal=causal, scale=scale, dropout=dropout)

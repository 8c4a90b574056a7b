"""Attention over chosen blocks of the map: AdaSpa (Xia et al. 2025, arXiv 2502.21079), Sparse-vDiT (2506.03065),
Efficient-vDiT (2502.06155), Longformer (2004.05150). The masks are built by `BlockMask` and `patterns`.
"""

from torch import Tensor

from kernels.block_sparse_attention import _patterns as patterns
from kernels.block_sparse_attention._mask import BlockMask
from kernels.registry import call

__all__ = ["BlockMask", "block_sparse_attention", "patterns"]


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of each query to the keys that `mask` keeps, and to no others; only kept blocks are computed:

        z_ij = scale q_i . k_j,  lse_i = log sum_(kept j) exp(z_ij),  y_i = sum_(kept j) exp(z_ij - lse_i) v_j

    q: (B, h, T, d), k: (B, h, S, d), v: (B, h, S, e) -> (B, h, T, e), all of one dtype; mask.tokens is (T, S).
    scale: d ** -0.5 where None. return_lse: returns (y, lse) with lse (B, h, T) in float32 at least, natural logarithm.
    A query without any key gets zeros, and -inf as lse. Differentiable in q, k and v, through lse too, but not twice.
    """
    if k.shape[:3] != v.shape[:3] or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"block_sparse_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit:"
            " expected (B, h, T, d), (B, h, S, d), (B, h, S, e)"
        )
    if (
        tuple(mask.tokens) != (q.shape[2], k.shape[2])
        or mask.keep.shape[0] not in (1, q.shape[0])
        or mask.keep.shape[1] not in (1, q.shape[1])
    ):
        raise ValueError(
            f"block_sparse_attention: the mask is for {mask.tokens[0]} x {mask.tokens[1]} tokens, (B, h) ="
            f" {tuple(mask.keep.shape[:2])}; q has {q.shape[2]} and k {k.shape[2]} tokens, (B, h) ="
            f" {tuple(q.shape[:2])} (a mask of size 1 serves all samples or heads)"
        )
    return call("block_sparse_attention", q, k, v, mask, scale=scale, return_lse=return_lse)

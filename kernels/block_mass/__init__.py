"""How much attention goes to each block of keys: the online search of AdaSpa (Xia et al. 2025, arXiv 2502.21079)."""

from torch import Tensor

from kernels.block_mass._selection import head_sparsity, keep_blocks, recall
from kernels.registry import call

__all__ = ["block_mass", "head_sparsity", "keep_blocks", "recall"]


def block_mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    block: int,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
) -> Tensor:
    """Sums the attention weights of every block of `block` queries and `block` keys (section 4, the second pass):

        W[p, r] = sum over i in block p, j in block r of exp(scale * q_i . k_j - lse_i)

    q: (B, h, T, d), k: (B, h, S, d), lse: (B, h, T) -> (B, h, ceil(T / block), ceil(S / block)) in float32.
    lse: log sum_j exp(scale * q_i . k_j), natural logarithm, as dense attention leaves it; then the row sums of W are
    the number of queries of each block. It may stem from an earlier denoising step (the cached search): the sums are
    off then, their order within a head hardly is. A query whose lse is -inf, one without any key, adds nothing.
    scale: d ** -0.5 where None. key_lengths: (B,) integers, the first key_lengths[b] keys count and the others are
    padding; all where None. The last block may be shorter than the others: it is summed as it is, never averaged.
    A search and so not differentiable: gradients stop here. No T x S tensor is made (except by `reference`).
    """
    B, h, T, d = q.shape
    if k.shape[:2] != (B, h) or k.shape[-1] != d or lse.shape != (B, h, T):
        raise ValueError(
            f"block_mass: q {tuple(q.shape)}, k {tuple(k.shape)}, lse {tuple(lse.shape)} do not fit:"
            " expected (B, h, T, d), (B, h, S, d), (B, h, T)"
        )
    if block < 1:
        raise ValueError(f"block_mass: block={block} must be at least 1 token")
    if key_lengths is not None and key_lengths.shape != (B,):
        raise ValueError(f"block_mass: key_lengths has shape {tuple(key_lengths.shape)}, expected ({B},), one a sample")
    return call("block_mass", q.detach(), k.detach(), lse.detach(), block=block, scale=scale, key_lengths=key_lengths)

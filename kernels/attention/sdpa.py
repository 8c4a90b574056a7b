"""Attention by torch's fused scaled_dot_product_attention: flash, memory-efficient or cuDNN, whichever torch picks.

What that function lacks is brought into its form: packed sequences are taken one by one, a window becomes blocks of
queries with the keys they can see (linear in T), and other options a mask. It has no log-sum-exp; _rows.py does that.
Short sequences on a CPU are three plain products and a softmax: there torch's tiles cost more than the weights do.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention._pairs import joined, pairs
from kernels.attention._rows import rows_with_lse

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

SHORT = range(16, 49)  # keys and queries: below, torch's tiles are the faster again; measured on one and two threads


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


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
    grouped = q.size(1) != k.size(1)
    extra = return_lse or window is not None or key_lengths is not None or cu_seqlens is not None
    if not (extra or grouped or causal or dropout) and mask is None and _is_short(q, k):
        return _products(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    if not extra and (
        not causal or (mask is None and q.shape[-2] == k.shape[-2])
    ):  # torch takes a mask or is_causal, and lines T != S up at the first token
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    if mask is None and key_lengths is None and cu_seqlens is not None and not torch.compiler.is_compiling():
        return _packed(q, k, v, cu_seqlens, causal, window, scale, dropout, return_lse)
    T, S = q.shape[-2], k.shape[-2]
    if window is not None and mask is None and cu_seqlens is None:
        block, reach = max(window, 64), window if causal else 2 * window
        if 2 * (block + reach) <= S:  # else the mask is no larger
            return _banded(q, k, v, block, causal, window, key_lengths, scale, dropout, return_lse)
    options = {"causal": causal, "window": window, "key_lengths": key_lengths, "cu_seqlens": cu_seqlens}
    if return_lse:
        return rows_with_lse(q, k, v, mask, options, scale, dropout)
    mask = joined(mask, pairs(T, S, q.device, **options))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=grouped)


def _is_short(q: Tensor, k: Tensor) -> bool:
    return q.is_cpu and q.dtype.itemsize >= 4 and q.shape[-2] in SHORT and k.shape[-2] in SHORT


def _products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The equation, heads side by side in one batch, the scale within the product."""
    scores = torch.baddbmm(q.new_zeros(()), q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).unflatten(0, q.shape[:2])


def _packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    dropout: float,
    return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """Each sequence by itself; zeros for what comes after the last."""
    T = q.shape[-2]
    lengths = cu_seqlens.diff().tolist()
    lengths.append(T - sum(lengths))
    options = {"causal": causal, "window": window, "scale": scale, "dropout": dropout, "return_lse": return_lse}
    parts = list(zip(*(x.split(lengths, dim=-2) for x in (q, k, v)), strict=True))
    done = [attention(*part, **options) for part in parts[:-1] if part[0].shape[-2]]
    padding = (*q.shape[:2], lengths[-1])
    if not return_lse:
        return torch.cat([*done, v.new_zeros(*padding, v.shape[-1])], dim=-2)
    y, lse = zip(*done, strict=True) if done else ((), ())
    wide = torch.promote_types(q.dtype, torch.float32)
    return (
        torch.cat([*y, v.new_zeros(*padding, v.shape[-1])], dim=-2),
        torch.cat([*lse, q.new_full(padding, -torch.inf, dtype=wide)], dim=-1),
    )


def _banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block: int,
    causal: bool,
    window: int,
    key_lengths: Tensor | None,
    scale: float | None,
    dropout: float,
    return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention within a window: n blocks of queries in the batch dimension, each with the keys that it can reach."""
    B, T, S = q.shape[0], q.shape[-2], k.shape[-2]
    n = -(-T // block)
    reach = block + (window if causal else 2 * window)
    before = window - (S - T)  # block r starts at key r * block - before; F.pad crops where the padding is negative
    after = n * block + reach - block - before - S

    def folded(x: Tensor) -> Tensor:  # (B, g, S, d) -> (B n, g, reach, d)
        padded = F.pad(x, (0, 0, before, after))
        return padded.unfold(-2, reach, block).transpose(-1, -2).transpose(1, 2).flatten(0, 1)

    blocks = F.pad(q, (0, 0, 0, n * block - T)).unflatten(-2, (n, block)).transpose(1, 2).flatten(0, 1)
    key = (
        torch.arange(n, device=q.device)[:, None] * block + torch.arange(reach, device=q.device) - before
    )  # (n, reach)
    exists = (key >= 0) & (key < S)
    if key_lengths is not None:
        exists = (exists & (key < key_lengths[:, None, None])).flatten(0, 1)
    elif B > 1:
        exists = exists.repeat(B, 1)
    offset = torch.arange(reach, device=q.device) - torch.arange(block, device=q.device)[:, None]
    near = (offset >= 0) & (offset <= reach - block)
    result = attention(
        blocks,
        folded(k),
        folded(v),
        mask=near & exists[:, None, None, :],
        scale=scale,
        dropout=dropout,
        return_lse=return_lse,
    )

    def unfolded(x: Tensor) -> Tensor:  # (B n, h, block, ...) -> (B, h, T, ...)
        return x.unflatten(0, (B, n)).transpose(1, 2).flatten(2, 3)[:, :, :T]

    return tuple(unfolded(x) for x in result) if return_lse else unfolded(result)

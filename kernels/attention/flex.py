"""Attention by torch's flex_attention, which compiles the options into one fused kernel. On a CPU forward only, slowly.

Shapes: B batch, h heads, T queries, S keys.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

PRIORITY = 5
REQUIRES = "a CUDA device or a CPU"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type in ("cuda", "cpu") and dtype in DTYPES


def fits(
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
) -> str:
    """What of this call flex_attention cannot do, or nothing."""
    if dropout:
        return "dropout"
    if torch.is_grad_enabled():
        if mask is not None and mask.requires_grad:
            return "a bias that asks for gradients"
        if q.device.type == "cpu" and any(x.requires_grad for x in (q, k, v)):
            return "gradients on a CPU"
    return ""


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
    added = mask is not None and mask.dtype != torch.bool
    if mask is not None:
        mask = mask.expand(*q.shape[:3], k.shape[2])

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + mask[b, h, i, j]

    y, extra = _flex(q.device.type)(
        q,
        k,
        v,
        score_mod=add if added else None,
        block_mask=_block_mask(q, k, None if added else mask, causal, window, key_lengths, cu_seqlens),
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
        return_aux=AuxRequest(lse=return_lse),
    )
    return (y, extra.lse) if return_lse else y


def _block_mask(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    cu_seqlens: Tensor | None,
) -> BlockMask | None:
    """The pairs that may attend, and which blocks of them are empty."""
    if mask is None and not causal and window is None and key_lengths is None and cu_seqlens is None:
        return None
    (B, h, T), S = q.shape[:3], k.shape[2]
    sequence = None
    if cu_seqlens is not None:  # 1, 2, ..., n and n + 1 after the last
        sequence = torch.searchsorted(cu_seqlens, torch.arange(T, device=q.device), right=True)
        n = len(cu_seqlens) - 1

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        aligned = i + (S - T)
        pair = j >= 0
        if causal:
            pair = pair & (j <= aligned)
        if window is not None:
            pair = pair & (j >= aligned - window) & (j <= aligned + window)
        if key_lengths is not None:
            pair = pair & (j < key_lengths[b])
        if sequence is not None:
            pair = pair & (sequence[i] == sequence[j]) & (sequence[j] <= n)
        return pair if mask is None else pair & mask[b, h, i, j]

    batches = B if mask is not None or key_lengths is not None else None
    return _maker(q.device.type)(seen, batches, h if mask is not None else None, T, S, device=q.device)


@cache
def _flex(device: str):
    return torch.compile(flex_attention) if device == "cuda" else flex_attention


@cache
def _maker(device: str):
    """Compiled, it needs no T x S tensor."""
    return torch.compile(create_block_mask) if device == "cuda" else create_block_mask

"""Attention by torch's fused scaled_dot_product_attention: flash, memory-efficient or cuDNN, whichever torch picks."""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


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
    T, S = q.shape[-2], k.shape[-2]
    if causal and (
        mask is not None or T != S
    ):  # torch takes a mask or is_causal, and lines T != S up at the first token
        lower = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        if mask is None:
            mask = lower
        else:
            mask = mask & lower if mask.dtype == torch.bool else mask.masked_fill(~lower, -torch.inf)
        causal = False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale)

"""Attention as the equation says, with all weights in memory: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention._pairs import pairs

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


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
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if q.shape[1] != k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * scale
    T, S = scores.shape[-2:]
    options = {"causal": causal, "window": window, "key_lengths": key_lengths, "cu_seqlens": cu_seqlens}
    seen = pairs(T, S, q.device, **options)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if seen is None and mask is None:
        weights, empty = torch.softmax(scores, dim=-1), None
    else:  # a row without any key would be 0 / 0
        empty = (scores == -torch.inf).all(dim=-1, keepdim=True)
        scores = scores.masked_fill(empty, 0.0)
        weights = torch.softmax(scores, dim=-1).masked_fill(empty, 0.0)
    y = F.dropout(weights, dropout) @ v
    if not return_lse:
        return y
    lse = torch.logsumexp(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=-1)
    return y, lse if empty is None else lse.masked_fill(empty.squeeze(-1), -torch.inf)

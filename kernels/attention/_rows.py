"""Attention with its log-sum-exp in plain torch, some rows of the scores at a time, computed again for the gradients.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kernels.attention._pairs import joined, pairs

SCORES = 2**22
"""How many scores to have in memory at a time: 16 MB in float32, which still fits into a cache."""


def rows_with_lse(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict, scale: float | None, dropout: float
) -> tuple[Tensor, Tensor]:
    """(y (B, h, T, e), lse (B, h, T)). options: what `pairs` is to be told."""
    (B, h, T, d), S = q.shape, k.shape[-2]
    scale = d**-0.5 if scale is None else scale
    size = max(16, SCORES // max(1, B * h * S))
    if size >= T:
        return _rows(q, k, v, joined(mask, pairs(T, S, q.device, **options)), scale, dropout)
    done = []
    for start in range(0, T, size):
        stop = min(start + size, T)
        part = mask if mask is None or mask.dim() < 2 or mask.shape[-2] == 1 else mask[..., start:stop, :]
        part = joined(part, pairs(T, S, q.device, **options, rows=(start, stop)))
        done.append(checkpoint(_rows, q[:, :, start:stop], k, v, part, scale, dropout, use_reentrant=False))
    y, lse = zip(*done, strict=True)
    return torch.cat(y, dim=-2), torch.cat(lse, dim=-1)


def _rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> tuple[Tensor, Tensor]:
    (B, h, T, _), g = q.shape, k.shape[1]
    members = (q * scale).reshape(B, g, h // g * T, -1)  # heads of a group share keys
    scores = (members @ k.transpose(-1, -2)).view(B, h, T, -1).to(torch.promote_types(q.dtype, torch.float32))
    empty = None
    if mask is not None and mask.dtype == torch.bool:
        empty = ~mask.any(dim=-1, keepdim=True)  # a row without any key would be 0 / 0
        scores = scores.masked_fill(~(mask | empty), -torch.inf)
    elif mask is not None:
        scores = scores + mask
        empty = scores.detach().amax(dim=-1, keepdim=True) == -torch.inf
        scores = scores.masked_fill(empty, 0.0)
    weights, lse = torch.softmax(scores, dim=-1), torch.logsumexp(scores, dim=-1)
    weights = F.dropout(weights.to(v.dtype), dropout)
    y = (weights.view(B, g, h // g * T, -1) @ v).view(B, h, T, -1)
    if empty is None:
        return y, lse
    return y.masked_fill(empty, 0.0), lse.masked_fill(empty.squeeze(-1), -torch.inf)

"""Linear attention in matrix products: all keys and values in one state, or, where causal, one state per chunk.

Within a chunk of CHUNK tokens the causal weights are formed (a small square); what came before it is in the state.
Without a mask the cheaper order is taken: q (k^T v), or (q k^T) v where the keys are few against their width.

Shapes: B batch, h heads, T queries, S keys, m features, e values, n chunks, c tokens of a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"
CHUNK = 64


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, normalize: bool = True) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        y, total = (_causal if causal else _full)(q.to(dtype), k.to(dtype), v.to(dtype), normalize)
        if total is not None:
            y = y / total.masked_fill(total == 0, torch.inf)
    return y.to(q.dtype)


def _full(q: Tensor, k: Tensor, v: Tensor, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """(sums, their total weights (B, h, T, 1)) over all keys."""
    (T, m), (S, e) = q.shape[-2:], v.shape[-2:]
    y = (q @ k.mT) @ v if T * S * (m + e) < (T + S) * m * e else q @ (k.mT @ v)
    return y, q @ k.sum(-2)[..., None] if normalize else None


def _causal(q: Tensor, k: Tensor, v: Tensor, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """(sums, their total weights (B, h, T, 1)) over the keys so far."""
    T = q.shape[-2]
    chunk = min(CHUNK, T)
    q, k, v = (F.pad(x, (0, 0, 0, -T % chunk)).unflatten(-2, (-1, chunk)) for x in (q, k, v))  # (B, h, n, c, ...)
    weights = (q @ k.mT).tril()
    y = weights @ v
    total = weights.sum(-1, keepdim=True) if normalize else None
    if chunk < T:  # the first chunk has no past
        past = (k[:, :, :-1].mT @ v[:, :, :-1]).cumsum(2)
        y = torch.cat([y[:, :, :1], y[:, :, 1:] + q[:, :, 1:] @ past], 2)
        if total is not None:
            past = k[:, :, :-1].sum(-2).cumsum(2)[..., None]
            total = torch.cat([total[:, :, :1], total[:, :, 1:] + q[:, :, 1:] @ past], 2)
    y = y.flatten(2, 3)[:, :, :T]
    return y, None if total is None else total.flatten(2, 3)[:, :, :T]

"""Joint local and global attention as the equations say, chunk by chunk: the definition of correct.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def joint_local_global_attention(
    q_local: Tensor,
    k_local: Tensor,
    q_global: Tensor,
    k_global: Tensor,
    v: Tensor,
    u: Tensor,
    *,
    group: int,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    B, S, _ = q_local.shape
    if mask is None:
        mask = torch.ones(B, S, dtype=torch.bool, device=q_local.device)

    weights = F.relu(chunks(q_local, group) @ chunks(k_local, group).mT / group).square()  # (B, C, P, P)
    weights = weights.masked_fill(~chunks(mask[..., None], group).mT, 0.0)
    if causal:
        weights = weights.tril()
    weights = F.dropout(weights, dropout)

    k_global = k_global.masked_fill(~mask[..., None], 0.0)
    outputs = []
    for x in (v, u):
        local = (weights @ chunks(x, group)).flatten(1, 2)[:, :S]
        if causal:
            per_chunk = chunks(k_global, group).mT @ chunks(x, group) / group  # (B, C, d, e)
            before = per_chunk.cumsum(1) - per_chunk
            linear = (chunks(q_global, group) @ before).flatten(1, 2)[:, :S]
        else:
            count = mask.sum(1).clamp(min=1)[:, None, None]
            linear = q_global @ (k_global.mT @ x / count)
        outputs.append(local + linear)
    return outputs[0], outputs[1]


def chunks(x: Tensor, group: int) -> Tensor:
    """(B, S, n) -> (B, C, P, n); the last chunk is filled up with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % group)).unflatten(1, (-1, group))

"""Linear attention in its quadratic form, with all weights q_i . k_j in memory: the definition of correct."""

import torch
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, normalize: bool = True) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        weights = q.to(dtype) @ k.to(dtype).mT
        if causal:
            weights = weights.tril()
        y = weights @ v.to(dtype)
        if normalize:
            total = weights.sum(-1, keepdim=True)
            y = y / total.masked_fill(total == 0, torch.inf)
    return y.to(q.dtype)

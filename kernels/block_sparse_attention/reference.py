"""Block-sparse attention with the whole map in memory, masked element by element: the definition of correct."""

import torch
from torch import Tensor

from kernels.block_sparse_attention._mask import BlockMask

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    kept = mask.dense().to(q.device)
    scores = (q.to(dtype) @ k.to(dtype).transpose(-1, -2) * scale).masked_fill(~kept, -torch.inf)
    empty = ~kept.any(-1, keepdim=True)  # a row without any key would be 0 / 0
    lse = scores.masked_fill(empty, 0.0).logsumexp(-1, keepdim=True)
    weights = (scores - lse).exp()
    y = (weights @ v.to(dtype)).to(q.dtype)
    return (y, lse.masked_fill(empty, -torch.inf)[..., 0]) if return_lse else y

"""Block masses from a few blocks of queries at a time: products, exponentials and sums while the scores are in cache.

The log-sum-exp rides along as one more feature (q, -lse) . (k, 1), so that one matrix product gives score - lse.
Shapes: N = B h heads, P blocks of queries, S keys, R blocks of keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

SCORES = {"cpu": 2**19, "cuda": 2**26}  # scores in memory at a time
NOTHING = 1e30  # the log-sum-exp of a query without keys: exp(score - NOTHING) is 0, and 0 * NOTHING is not NaN


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def block_mass(
    q: Tensor, k: Tensor, lse: Tensor, *, block: int, scale: float | None = None, key_lengths: Tensor | None = None
) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    (B, h, T, d), S = q.shape, k.shape[2]
    scale = d**-0.5 if scale is None else scale
    lse = lse.to(dtype)
    lse = lse.masked_fill(lse == -torch.inf, NOTHING)
    q = torch.cat([q.to(dtype) * scale, -lse[..., None]], -1).flatten(0, 1)
    k = F.pad(k.to(dtype), (0, 1), value=1.0).flatten(0, 1).transpose(1, 2)
    per_key = q.new_empty(B * h, -(-T // block), S)  # summed over the queries of a block only
    blocks = max(
        1, SCORES.get(q.device.type, SCORES["cuda"]) // max(1, block * S)
    )  # of queries, maybe of several heads
    heads = max(1, blocks // per_key.shape[1])
    for n in range(0, B * h, heads):
        q_n, k_n = q[n : n + heads], k[n : n + heads]
        for p in range(0, per_key.shape[1], blocks):
            weights = torch.bmm(q_n[:, p * block : (p + blocks) * block], k_n).exp_()
            per_key[n : n + heads, p : p + blocks] = _block_sums(weights, block, 1)
    if key_lengths is not None:
        padding = torch.arange(S, device=q.device) >= key_lengths[:, None]
        per_key.view(B, h, -1, S).masked_fill_(padding[:, None, None], 0.0)
    return _block_sums(per_key, block, 2).view(B, h, per_key.shape[1], -1)


def _block_sums(x: Tensor, block: int, dim: int) -> Tensor:
    """Sums along `dim` in blocks, of which the last may be shorter."""
    full = x.shape[dim] // block * block
    sums = x.narrow(dim, 0, full).unflatten(dim, (-1, block)).sum(dim + 1)
    if full == x.shape[dim]:
        return sums
    return torch.cat([sums, x.narrow(dim, full, x.shape[dim] - full).sum(dim, keepdim=True)], dim)

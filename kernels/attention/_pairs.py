"""Which query may attend to which key, as a boolean tensor: what the options of `attention` mean.

Shapes: B batch, T queries, S keys.
"""

import torch
from torch import Tensor


def pairs(
    T: int,
    S: int,
    device: torch.device,
    *,
    causal: bool,
    window: int | None,
    key_lengths: Tensor | None,
    cu_seqlens: Tensor | None,
    rows: tuple[int, int] | None = None,
) -> Tensor | None:
    """True where a query may attend: broadcastable to (B, 1, T, S), None where all may. rows: only these queries."""
    query = torch.arange(*(rows or (0, T)), device=device)[:, None]
    key = torch.arange(S, device=device)
    seen = None
    if causal:
        seen = key <= query + (S - T)
    if window is not None:
        near = key >= query + (S - T - window)
        seen = near if seen is None else seen & near
        if not causal:
            seen = seen & (key <= query + (S - T + window))
    if cu_seqlens is not None:
        # 1, 2, ..., n within the sequences and n + 1 after the last
        of_query, of_key = (torch.searchsorted(cu_seqlens, x, right=True) for x in (query, key))
        same = (of_query == of_key) & (of_key < len(cu_seqlens))
        seen = same if seen is None else seen & same
    if key_lengths is not None:
        exists = (key < key_lengths[:, None])[:, None, None, :]
        seen = exists if seen is None else seen & exists
    return seen


def joined(mask: Tensor | None, seen: Tensor | None) -> Tensor | None:
    """One mask for both: boolean, or -inf added to the scores of the pairs that `seen` excludes."""
    if mask is None or seen is None:
        return seen if mask is None else mask
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)

"""Tokens sorted by expert, and back (the dispatch of a mixture of experts: BigMac 2025, arXiv 2502.16927).

Everything stays on the device, in shapes that the host knows. Both ways, and their gradients, are gathers: no atomic
additions, so the same numbers on every run.

Shapes: N tokens, k experts per token, e experts, h width, R rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def permute(x: Tensor, experts: Tensor, num_experts: int, capacity: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Copies each token once per expert that it goes to, sorted by expert and, within one, by token.

    x: (N, h); experts: (N, k) integers in [0, num_experts). capacity: an expert keeps only its first `capacity` rows.
    Returns rows (R, h), counts (num_experts,) int64 and order (N, k) int64: the row of each copy, -1 where it was
    dropped. R is N k, or at most num_experts * capacity; with a capacity, counts may add up to less, and the rows after
    them are zeros (`grouped_linear` takes them as they are). Not differentiable twice.
    """
    if x.dim() != 2 or experts.dim() != 2 or experts.shape[0] != x.shape[0]:
        raise ValueError(
            f"permute: x {tuple(x.shape)} and experts {tuple(experts.shape)} do not fit: expected (N, h) and (N, k)"
        )
    if num_experts < 1 or (capacity is not None and capacity < 1):
        raise ValueError(f"permute: num_experts={num_experts} and capacity={capacity} must be at least 1")
    order, counts = _order(experts, num_experts, capacity)
    R = experts.numel() if capacity is None else min(experts.numel(), num_experts * capacity)
    return _Spread.apply(x, order, R, capacity is not None), counts, order


def unpermute(rows: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """Sums the rows of each token: y_n = sum_j weights_nj rows[order_nj]; a dropped copy counts as zeros.

    rows: (R, h), order: (N, k) from `permute`, weights: (N, k) -> (N, h) in rows' dtype. Not differentiable twice.
    """
    if rows.dim() != 2 or order.dim() != 2 or order.shape != weights.shape:
        raise ValueError(
            f"unpermute: rows {tuple(rows.shape)}, order {tuple(order.shape)}, weights {tuple(weights.shape)} do not"
            " fit: expected (R, h), (N, k), (N, k)"
        )
    return _Combine.apply(rows, order, weights)


def _order(experts: Tensor, num_experts: int, capacity: int | None) -> tuple[Tensor, Tensor]:
    """(row of each copy (N, k), rows of each expert (e,))."""
    expert, copy = torch.sort(experts.flatten(), stable=True)
    row = torch.arange(expert.numel(), device=expert.device)
    ends = torch.searchsorted(expert, torch.arange(num_experts, device=expert.device, dtype=expert.dtype), right=True)
    counts = ends.diff(prepend=ends.new_zeros(1))
    if capacity is not None:
        rank = row - (ends - counts)[expert]
        counts = counts.clamp(max=capacity)
        row = torch.where(rank < capacity, (counts.cumsum(0) - counts)[expert] + rank, -1)
    return torch.empty_like(row).scatter(0, copy, row).view_as(experts), counts


def _copies(order: Tensor, R: int) -> Tensor:
    """(R,): which of the N k copies each row is, -1 for none."""
    flat = order.flatten()
    copies = torch.full((R + 1,), -1, device=order.device)
    copies = copies.scatter(0, torch.where(flat < 0, R, flat), torch.arange(flat.numel(), device=order.device))
    return copies[:R]  # the last one took what was dropped


def _sum_rows(rows: Tensor, order: Tensor, weights: Tensor | None) -> Tensor:
    """`unpermute`, all weights 1 where None."""
    if rows.shape[0] == 0:
        return rows.new_zeros(order.shape[0], rows.shape[1])
    kept = order >= 0
    weights = kept.to(rows.dtype) if weights is None else torch.where(kept, weights, 0).to(rows.dtype)
    return F.embedding_bag(order.clamp(min=0), rows, mode="sum", per_sample_weights=weights)


class _Spread(torch.autograd.Function):
    """x (N, h) -> rows (R, h)."""

    @staticmethod
    def forward(ctx, x, order, R, may_drop):
        ctx.save_for_backward(order)
        copies = _copies(order, R)
        rows = x.index_select(0, copies.clamp(min=0) // order.shape[1])
        return rows.masked_fill((copies < 0)[:, None], 0) if may_drop else rows

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (order,) = ctx.saved_tensors
        return _sum_rows(g.contiguous(), order, None), None, None, None


class _Combine(torch.autograd.Function):
    """(rows (R, h), order, weights) -> y (N, h)."""

    @staticmethod
    def forward(ctx, rows, order, weights):
        ctx.save_for_backward(rows, order, weights)
        return _sum_rows(rows.contiguous(), order, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        rows, order, weights = ctx.saved_tensors
        copies = _copies(order, rows.shape[0])
        copy, used = copies.clamp(min=0), copies >= 0
        g = gy.index_select(0, copy // order.shape[1])
        kept = order >= 0
        g_weights = (rows * g).sum(-1)[order.clamp(min=0)] if rows.shape[0] else torch.zeros_like(weights)
        weight = torch.where(used, weights.flatten()[copy], 0).to(g.dtype)
        return g * weight[:, None], None, torch.where(kept, g_weights, 0).to(weights.dtype)

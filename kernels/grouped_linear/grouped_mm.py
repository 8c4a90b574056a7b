"""Grouped products by torch._grouped_mm on a Hopper GPU, elsewhere by one matrix product per expert into one output.

torch._grouped_mm takes bfloat16 with sizes that are multiples of 8. It leaves the rows after the last group, and on
some GPUs the weight gradient of an empty group, as memory was: both are set to zero here, without a host sync.
The loop reads the counts on the host and writes every result in place: no copy by `cat`, no gradient of a slice.

Shapes: N rows, e experts, out and in features (m and k of a product: forward x W^T and backward gy W are one op).
"""

from itertools import accumulate

import torch
from torch import Tensor

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None = None) -> Tensor:
    return _product(x, weight, counts, bias)


@torch.library.custom_op("runner::grouped_linear_product", mutates_args=())
def _product(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, k), weight (e, m, k), strided as it likes -> (N, m)."""
    if _has_grouped_mm(x, weight):
        return _fused_product(x, weight, counts, bias)
    y = x.new_empty(x.shape[0], weight.shape[1])
    spans = _spans(counts, x.shape[0])
    for i, rows in enumerate(spans):
        if bias is None:
            torch.mm(x[rows], weight[i].t(), out=y[rows])
        else:
            torch.addmm(bias[i], x[rows], weight[i].t(), out=y[rows])
    y[spans[-1].stop :] = 0
    return y


@_product.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("runner::grouped_linear_weight_gradient", mutates_args=())
def _weight_gradient(gy: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """gy (N, m), x (N, k) -> (e, m, k)."""
    if _has_grouped_mm(gy, x):
        gw = torch._grouped_mm(gy.t(), x, offs=_ends(counts))
        return gw.masked_fill_((counts == 0)[:, None, None], 0)
    gw = x.new_empty(counts.numel(), gy.shape[1], x.shape[1])
    for i, rows in enumerate(_spans(counts, x.shape[0])):
        torch.mm(gy[rows].t(), x[rows], out=gw[i])  # zeros for no rows
    return gw


@_weight_gradient.register_fake
def _(gy: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.numel(), gy.shape[1], x.shape[1])


@torch.library.custom_op("runner::grouped_linear_bias_gradient", mutates_args=())
def _bias_gradient(gy: Tensor, counts: Tensor) -> Tensor:
    """gy (N, m) -> (e, m)."""
    ones = gy.new_ones(gy.shape[0], 8) if gy.is_cuda else gy
    if gy.is_cuda and _has_grouped_mm(gy, ones):
        return torch._grouped_mm(ones.t(), gy, offs=_ends(counts))[:, 0].masked_fill((counts == 0)[:, None], 0)
    gb = gy.new_empty(counts.numel(), gy.shape[1])
    for i, rows in enumerate(_spans(counts, gy.shape[0])):
        torch.sum(gy[rows], 0, out=gb[i])
    return gb


@_bias_gradient.register_fake
def _(gy: Tensor, counts: Tensor) -> Tensor:
    return gy.new_empty(counts.numel(), gy.shape[1])


def _setup_context(ctx, inputs, output) -> None:
    x, weight, counts, _ = inputs
    ctx.save_for_backward(x, weight, counts)


def _backward(ctx, gy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, counts = ctx.saved_tensors
    gy = gy.contiguous()
    gx = _product(gy, weight.transpose(1, 2), counts, None) if ctx.needs_input_grad[0] else None
    gw = _weight_gradient(gy, x, counts) if ctx.needs_input_grad[1] else None
    gb = _bias_gradient(gy, counts) if ctx.needs_input_grad[3] else None
    return gx, gw, None, gb


_product.register_autograd(_backward, setup_context=_setup_context)


def _spans(counts: Tensor, N: int) -> list[slice]:
    """The rows of each expert."""
    sizes = counts.tolist()
    ends = list(accumulate(sizes))
    if ends[-1] > N or min(sizes) < 0:
        raise ValueError(f"grouped_linear: counts {sizes} must be >= 0 and add up to at most the {N} rows of x")
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _has_grouped_mm(*operands: Tensor) -> bool:
    return (
        operands[0].is_cuda
        and hasattr(torch, "_grouped_mm")
        and torch.cuda.get_device_capability(operands[0].device) >= (9, 0)
        and all(y.dtype == torch.bfloat16 and y.shape[-1] % 8 == 0 and y.shape[-2] > 0 for y in operands)
        and all(y.dim() == 2 or y.shape[-2] % 8 == 0 for y in operands)
    )


def _fused_product(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    ends = _ends(counts)
    y = torch._grouped_mm(x.contiguous(), weight.transpose(1, 2), offs=ends)
    row = torch.arange(x.shape[0], device=x.device, dtype=torch.int32)
    if bias is not None:
        y = y + bias[torch.searchsorted(ends, row, right=True).clamp(max=bias.shape[0] - 1)]
    return torch.where((row < ends[-1])[:, None], y, 0)


def _ends(counts: Tensor) -> Tensor:
    return counts.cumsum(0).to(torch.int32)

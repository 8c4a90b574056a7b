"""The linear layer in few torch operations: the weight is unpacked for one matrix product.

Backward unpacks it again, so that a model keeps the packed weight only; but on a CPU, where that takes longer than a
product with few rows, autograd keeps the unpacked weight for backward.

Shapes: K inputs, N outputs, G = K / 4 groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.sparse24_linear._pack import places
from kernels.sparse24_linear._round import rounded

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def sparse24_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
) -> Tensor:
    if x_scale is not None:
        x = rounded(x, x_scale)
    if x.is_cpu:
        weight = _weight(values, places(indices, values.shape[1] // 2), scale, x.dtype)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))
    return _Product.apply(x, values, indices, scale, bias)


class _Product(torch.autograd.Function):
    """x W^T + bias."""

    @staticmethod
    def forward(ctx, x, values, indices, scale, bias):
        inputs = x if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None
        ctx.save_for_backward(inputs, values, indices, scale, bias)
        weight = _weight(values, places(indices, values.shape[1] // 2), scale, x.dtype)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, values, indices, scale, bias = ctx.saved_tensors
        g_x = g_values = g_scale = g_bias = None
        places_NG2 = places(indices, values.shape[1] // 2)
        if ctx.needs_input_grad[0]:
            g_x = gy @ _weight(values, places_NG2, scale, gy.dtype)
        if ctx.needs_input_grad[1]:
            g_weight = gy.flatten(0, -2).mT @ x.flatten(0, -2)
            g_values = g_weight.unflatten(1, (-1, 4)).gather(-1, places_NG2).flatten(1)
        if ctx.needs_input_grad[3]:
            part = torch.full_like(scale, 1 / 127)  # 127 may overflow float16
            fractions = _weight(values, places_NG2, part, gy.dtype)
            g_scale = 127 * (gy * F.linear(x, fractions)).flatten(0, -2).sum(0, dtype=scale.dtype)
        if ctx.needs_input_grad[4]:
            g_bias = gy.flatten(0, -2).sum(0).to(bias.dtype)
        return g_x, g_values, None, g_scale, g_bias


def _weight(values: Tensor, places_NG2: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight (N, K) in this dtype; it is the kept half that is converted and scaled."""
    values = values.to(dtype) if scale is None else (values * scale[:, None]).to(dtype)
    groups = values.new_zeros(*places_NG2.shape[:2], 4)
    return groups.scatter_(-1, places_NG2, values.view(places_NG2.shape)).flatten(1)

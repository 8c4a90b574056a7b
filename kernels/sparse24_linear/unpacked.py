"""The linear layer in few torch operations: the weight is unpacked for one matrix product.

Backward unpacks it again, so that a model keeps the packed weight only; but on a CPU, where that takes longer than a
product with few rows, the unpacked weight waits for backward.

Shapes: K inputs, N outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    return _Product.apply(x, values, indices, scale, bias)


class _Product(torch.autograd.Function):
    """x W^T + bias."""

    @staticmethod
    def forward(ctx, x, values, indices, scale, bias):
        columns = _columns(indices, values.shape[1])
        weight = _weight(values, columns, scale, x.dtype)
        inputs = x if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None
        waiting = None, None
        if x.device.type == "cpu":
            waiting = weight if ctx.needs_input_grad[0] else None, columns if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inputs, values, indices, scale, bias, *waiting)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, values, indices, scale, bias, weight, columns = ctx.saved_tensors
        g_x = g_values = g_scale = g_bias = None
        if columns is None and (weight is None or ctx.needs_input_grad[3]):
            columns = _columns(indices, values.shape[1])
        if ctx.needs_input_grad[0]:
            g_x = gy @ (_weight(values, columns, scale, gy.dtype) if weight is None else weight)
        if ctx.needs_input_grad[1]:
            g_values = (gy.flatten(0, -2).mT @ x.flatten(0, -2)).gather(1, columns)
        if ctx.needs_input_grad[3]:
            fractions = _weight(values, columns, torch.full_like(scale, 1 / 127), gy.dtype)  # 127 may overflow float16
            g_scale = 127 * (gy * F.linear(x, fractions)).flatten(0, -2).sum(0, dtype=scale.dtype)
        if ctx.needs_input_grad[4]:
            g_bias = gy.flatten(0, -2).sum(0).to(bias.dtype)
        return g_x, g_values, None, g_scale, g_bias


def _weight(values: Tensor, columns: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight (N, K) in this dtype; it is the kept half that is converted and scaled."""
    values = values.to(dtype) if scale is None else (values * scale[:, None]).to(dtype)
    N, half = values.shape
    return values.new_zeros(N, 2 * half).scatter_(1, columns, values)


def _columns(indices: Tensor, half: int) -> Tensor:
    """The inputs (N, half) that the kept weights belong to, int64."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=indices.device)
    places = ((indices.unsqueeze(-1) >> shifts) & 3).view(indices.shape[0], -1, 2)[:, : half // 2]
    return (places + torch.arange(0, 2 * half, 4, device=indices.device).unsqueeze(1)).flatten(1)

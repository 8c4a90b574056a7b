"""The linear layer in few torch operations: the codes are looked up in a table, bytes with two codes in one of pairs.

The decoded weight lives for one matrix product: backward looks it up again, so that a model keeps its codes only; but
on a CPU, where looking up takes as long as a product with few rows, autograd keeps the weight for backward.

Shapes: K inputs, N outputs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.fp_linear import _format
from kernels.fp_linear._format import FloatFormat

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

PAIR = {2: torch.int32, 4: torch.int64, 8: torch.complex128}  # item size of a dtype -> a dtype that holds two of it


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize in PAIR


def fp_linear(
    x: Tensor,
    codes: Tensor,
    format: FloatFormat,
    exponent_bias: Tensor,
    bias: Tensor | None = None,
    *,
    input_format: FloatFormat | None = None,
    input_exponent_bias: Tensor | None = None,
    input_shift: Tensor | None = None,
) -> Tensor:
    if input_format is not None:
        if input_shift is not None:
            input_exponent_bias = input_exponent_bias + input_shift
        quantize = _format.quantize if x.dtype == torch.float64 else _Quantize.apply
        x = quantize(x, input_format, input_exponent_bias)
    if x.is_cpu:
        unit = _unit(format, exponent_bias, x.dtype)
        return F.linear(x, (_levels(codes, format, x.shape[-1], x.dtype) * unit).to(x.dtype), bias)
    return _Product.apply(x, codes, format, exponent_bias, bias)


class _Product(torch.autograd.Function):
    """x W^T + bias."""

    @staticmethod
    def forward(ctx, x, codes, format, exponent_bias, bias):
        ctx.format, ctx.inputs = format, x.shape[-1]
        ctx.save_for_backward(codes, exponent_bias, bias, x if ctx.needs_input_grad[3] else None)
        return F.linear(x, _weight(codes, format, exponent_bias, x.shape[-1], x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        codes, exponent_bias, bias, x = ctx.saved_tensors
        weight = _weight(codes, ctx.format, exponent_bias, ctx.inputs, gy.dtype)
        g_x = gy @ weight if ctx.needs_input_grad[0] else None
        g_exponent_bias = g_bias = None
        if x is not None:  # dW / d exponent_bias = -(ln 2) W
            per_output = (gy * F.linear(x, weight)).flatten(0, -2).sum(0, dtype=exponent_bias.dtype)
            g_exponent_bias = -math.log(2) * per_output.sum_to_size(exponent_bias.shape)
        if ctx.needs_input_grad[4]:
            g_bias = gy.flatten(0, -2).sum(0).to(bias.dtype)
        return g_x, None, None, g_exponent_bias, g_bias


def _weight(codes: Tensor, format: FloatFormat, exponent_bias: Tensor, inputs: int, dtype: torch.dtype) -> Tensor:
    """The decoded weight (N, K) in this dtype."""
    return _levels(codes, format, inputs, dtype).mul_(_unit(format, exponent_bias, dtype))


def _levels(codes: Tensor, format: FloatFormat, inputs: int, dtype: torch.dtype) -> Tensor:
    """The weight (N, K) in units of the highest binade."""
    levels = torch.tensor(format.levels, dtype=dtype, device=codes.device)
    if format.bits == 4:
        levels = torch.stack((levels.repeat(16), levels.repeat_interleave(16)), dim=-1).view(PAIR[dtype.itemsize])
    return levels.flatten().index_select(0, codes.flatten().int()).view(dtype).view(codes.shape[0], -1)[:, :inputs]


def _unit(format: FloatFormat, exponent_bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The highest binade of each output (N, 1) or of all (1,), in float32 at least."""
    return format.unit(exponent_bias.to(torch.promote_types(dtype, torch.float32))).unsqueeze(-1)


class _Quantize(torch.autograd.Function):
    """`_format.quantize` for float32 and less, in place where it can.

    Adding and taking away 1.5 * 2^(23 + k) rounds a float32 to a multiple of 2^k, ties to even.
    """

    @staticmethod
    def forward(ctx, x, format, bias):
        ctx.format = format
        ctx.save_for_backward(x, bias)
        return _rounded(x, format, format.unit(bias.float())).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        x, bias = ctx.saved_tensors
        format, unit = ctx.format, ctx.format.unit(bias.float())
        g_x = gy.masked_fill((x.float() / unit).abs_() > format.limit, 0)
        g_bias = None
        if ctx.needs_input_grad[2]:
            g_bias = g_x.float() * x - gy.float() * _rounded(x, format, unit)
            g_bias = (math.log(2) * g_bias).sum_to_size(bias.shape).to(bias.dtype)
        return g_x, None, g_bias


def _rounded(x: Tensor, format: FloatFormat, unit: Tensor) -> Tensor:
    y = (x.float() / unit).clamp_(-format.limit, format.limit)
    shifter = y.view(torch.int32) & 0x7F800000  # the exponent's bits: the power of two below |y|
    shifter.clamp_(min=(128 - format.top) << 23)  # the smallest normal value's
    shifter.add_(((23 - format.mantissa) << 23) + (1 << 22))
    shifter = shifter.view(torch.float32)
    return y.add_(shifter).sub_(shifter).mul_(unit)

"""The linear layer by Triton kernels, see _kernels.py: fused for few rows, decoding and cuBLAS for many.

Backward decodes the weight again, so that a model keeps its codes only.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import gpu
from kernels.fp_linear import _kernels
from kernels.fp_linear._format import FloatFormat

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs


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
        x = _quantize(x, input_exponent_bias, input_shift, input_format.exponent, input_format.mantissa)
    return _product(x, codes, exponent_bias, bias, format.exponent, format.mantissa)


@torch.library.custom_op("runner::fp_linear_quantize", mutates_args=())
def _quantize(x: Tensor, exponent_bias: Tensor, shift: Tensor | None, exponent: int, mantissa: int) -> Tensor:
    return _kernels.quantized(x.contiguous(), FloatFormat(exponent, mantissa), exponent_bias, shift)


@_quantize.register_fake
def _(x, exponent_bias, shift, exponent, mantissa):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("runner::fp_linear_quantize_backward", mutates_args=())
def _quantize_backward(
    gy: Tensor, x: Tensor, exponent_bias: Tensor, shift: Tensor | None, exponent: int, mantissa: int
) -> tuple[Tensor, Tensor]:
    format = FloatFormat(exponent, mantissa)
    return _kernels.quantized_backward(gy.contiguous(), x.contiguous(), format, exponent_bias, shift)


@_quantize_backward.register_fake
def _(gy, x, exponent_bias, shift, exponent, mantissa):
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(exponent_bias)


def _keep_quantize(ctx, inputs, output):
    x, exponent_bias, shift, *ctx.format = inputs
    ctx.save_for_backward(x, exponent_bias, shift)


def _differentiate_quantize(ctx, gy):
    g_x, g_exponent_bias = _quantize_backward(gy, *ctx.saved_tensors, *ctx.format)
    return g_x, g_exponent_bias, None, None, None


_quantize.register_autograd(_differentiate_quantize, setup_context=_keep_quantize)


@torch.library.custom_op("runner::fp_linear_product", mutates_args=())
def _product(
    x: Tensor, codes: Tensor, exponent_bias: Tensor, bias: Tensor | None, exponent: int, mantissa: int
) -> Tensor:
    format, rows = FloatFormat(exponent, mantissa), x.numel() // max(1, x.shape[-1])
    if 0 < rows <= _kernels.FEW_ROWS:
        y = _kernels.few_rows(x.reshape(rows, -1).contiguous(), codes.contiguous(), format, exponent_bias, bias)
        return y.view(*x.shape[:-1], -1)
    weight = _kernels.decoded(codes.contiguous(), format, exponent_bias, x.shape[-1], x.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


@_product.register_fake
def _(x, codes, exponent_bias, bias, exponent, mantissa):
    return x.new_empty(*x.shape[:-1], codes.shape[0])


@torch.library.custom_op("runner::fp_linear_decode", mutates_args=())
def _decode(
    codes: Tensor, exponent_bias: Tensor, exponent: int, mantissa: int, inputs: int, dtype: torch.dtype
) -> Tensor:
    return _kernels.decoded(codes.contiguous(), FloatFormat(exponent, mantissa), exponent_bias, inputs, dtype)


@_decode.register_fake
def _(codes, exponent_bias, exponent, mantissa, inputs, dtype):
    return torch.empty(codes.shape[0], inputs, dtype=dtype, device=codes.device)


def _keep_product(ctx, inputs, output):
    x, codes, exponent_bias, bias, *ctx.format = inputs
    ctx.inputs = x.shape[-1]
    ctx.save_for_backward(codes, exponent_bias, bias, x if ctx.needs_input_grad[2] else None)


def _differentiate_product(ctx, gy):
    codes, exponent_bias, bias, x = ctx.saved_tensors
    weight = _decode(codes, exponent_bias, *ctx.format, ctx.inputs, gy.dtype)
    g_x = gy @ weight if ctx.needs_input_grad[0] else None
    g_exponent_bias = g_bias = None
    if x is not None:  # dW / d exponent_bias = -(ln 2) W
        per_output = (gy * F.linear(x, weight)).flatten(0, -2).sum(0, dtype=exponent_bias.dtype)
        g_exponent_bias = -math.log(2) * per_output.sum_to_size(exponent_bias.shape)
    if ctx.needs_input_grad[3]:
        g_bias = gy.flatten(0, -2).sum(0).to(bias.dtype)
    return g_x, None, g_exponent_bias, g_bias, None, None


_product.register_autograd(_differentiate_product, setup_context=_keep_product)

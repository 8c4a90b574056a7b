"""The 2:4 linear layer by Triton kernels, see _kernels.py: fused for few rows, unpacking and cuBLAS for many.

Backward unpacks the weight again, so that a model keeps the packed weight only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import gpu
from kernels.sparse24_linear import _kernels
from kernels.sparse24_linear._round import rounded

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs


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
    return _product(x, values, indices, scale, bias)


@torch.library.custom_op("runner::sparse24_linear_product", mutates_args=())
def _product(x: Tensor, values: Tensor, indices: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    values, indices = values.contiguous(), indices.contiguous()
    rows = x.numel() // max(1, x.shape[-1])
    if 0 < rows <= _kernels.FEW_ROWS:
        y = _kernels.few_rows(x.reshape(rows, -1).contiguous(), values, indices, scale, bias)
        return y.view(*x.shape[:-1], -1)
    weight = _kernels.unpacked(values, indices, scale, x.dtype)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


@_product.register_fake
def _(x, values, indices, scale, bias):
    return x.new_empty(*x.shape[:-1], values.shape[0])


@torch.library.custom_op("runner::sparse24_linear_unpack", mutates_args=())
def _unpack(values: Tensor, indices: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return _kernels.unpacked(values.contiguous(), indices.contiguous(), scale, dtype)


@_unpack.register_fake
def _(values, indices, scale, dtype):
    return torch.empty(values.shape[0], 2 * values.shape[1], dtype=dtype, device=values.device)


@torch.library.custom_op("runner::sparse24_linear_keep", mutates_args=())
def _keep(dense: Tensor, indices: Tensor) -> Tensor:
    return _kernels.kept(dense.contiguous(), indices.contiguous())


@_keep.register_fake
def _(dense, indices):
    return dense.new_empty(dense.shape[0], dense.shape[1] // 2)


def _keep_for_backward(ctx, inputs, output):
    x, values, indices, scale, bias = inputs
    kept = x if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None
    ctx.save_for_backward(kept, values, indices, scale, bias)


def _differentiate(ctx, gy):
    x, values, indices, scale, bias = ctx.saved_tensors
    g_x = g_values = g_scale = g_bias = None
    if ctx.needs_input_grad[0]:
        g_x = gy @ _unpack(values, indices, scale, gy.dtype)
    if ctx.needs_input_grad[1]:
        g_values = _keep(gy.flatten(0, -2).mT @ x.flatten(0, -2), indices)
    if ctx.needs_input_grad[3]:
        fractions = _unpack(values, indices, torch.full_like(scale, 1 / 127), gy.dtype)  # 127 may overflow float16
        g_scale = 127 * (gy * F.linear(x, fractions)).flatten(0, -2).sum(0, dtype=scale.dtype)
    if ctx.needs_input_grad[4]:
        g_bias = gy.flatten(0, -2).sum(0).to(bias.dtype)
    return g_x, g_values, None, g_scale, g_bias


_product.register_autograd(_differentiate, setup_context=_keep_for_backward)

"""The 2:4 linear layer by the sparse tensor cores, through torch's semi-structured sparse tensors.

torch has a storage of its own (that of cuSPARSELt or CUTLASS), so that each weight is compressed on its first call and
kept until it changes. It saves arithmetic, not reading: it pays for many rows. Backward multiplies by the unpacked
weight, as the pattern does not lie along the outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kernels.sparse24_linear._pack import unpack24

PRIORITY = 15
REQUIRES = "a CUDA device of compute capability 8.0 or newer and 16-bit tensors"

ROWS, COLUMNS = 32, 64  # of the sizes of a 16-bit weight: cuSPARSELt takes multiples of 16 and 16, CUTLASS of these

_compressed = WeakTensorKeyDictionary()  # values -> ((its version, the indices' version), the compressed weight)


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def fits(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
) -> str:
    N, K = values.shape[0], x.shape[-1]
    if scale is not None or x_scale is not None:
        return "int8 values"
    if values.requires_grad:
        return "gradients of the values"
    if N == 0 or K == 0 or N % ROWS or K % COLUMNS:
        return f"a weight of ({N}, {K}): not multiples of ({ROWS}, {COLUMNS})"
    return "" if x.numel() else "no rows"


def sparse24_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
) -> Tensor:
    if reason := fits(x, values, indices, scale, bias, x_scale=x_scale):
        raise ValueError(f"sparse24_linear: semi-structured tensors do not do {reason}")
    y = _product(x, values, indices)
    return y if bias is None else y + bias.to(x.dtype)


def _weight(values: Tensor, indices: Tensor) -> Tensor:
    """The weight in torch's storage, compressed now or the same values' last time."""
    versions = tuple(None if t.is_inference() else t._version for t in (values, indices))
    entry = _compressed.get(values)
    if entry is None or entry[0] != versions or None in versions:
        entry = versions, torch.sparse.to_sparse_semi_structured(unpack24(values, indices))
        _compressed[values] = entry
    return entry[1]


@torch.library.custom_op("runner::sparse24_linear_semi_structured", mutates_args=())
def _product(x: Tensor, values: Tensor, indices: Tensor) -> Tensor:
    y = F.linear(x.flatten(0, -2).contiguous(), _weight(values, indices))
    return y.contiguous().view(*x.shape[:-1], -1)


@_product.register_fake
def _(x, values, indices):
    return x.new_empty(*x.shape[:-1], values.shape[0])


def _keep(ctx, inputs, output):
    _, values, indices = inputs
    ctx.save_for_backward(values, indices)


def _differentiate(ctx, gy):
    return gy @ unpack24(*ctx.saved_tensors), None, None


_product.register_autograd(_differentiate, setup_context=_keep)

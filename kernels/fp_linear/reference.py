"""The linear layer as the equation says, with the decoded weight in memory: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.fp_linear._format import FloatFormat, decode, quantize, unpack4

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


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
    dtype = torch.promote_types(x.dtype, torch.float32)
    if format.bits == 4:
        codes = unpack4(codes, x.shape[-1])
    weight = decode(codes, format, exponent_bias.to(dtype).unsqueeze(-1))
    x_ = x.to(dtype)
    if input_format is not None:
        shift = 0 if input_shift is None else input_shift
        x_ = quantize(x_, input_format, input_exponent_bias.to(dtype) + shift)
    return F.linear(x_, weight, None if bias is None else bias.to(dtype)).to(x.dtype)

"""The linear layer with the unpacked weight in memory: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.sparse24_linear._pack import unpack24

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def sparse24_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight = unpack24(values.to(dtype), indices, None if scale is None else scale.to(dtype))
    x_ = x.to(dtype)
    if x_scale is not None:
        x_scale = x_scale.detach().to(dtype)
        scaled = (x_ / x_scale).clamp(-127, 127)
        x_ = (scaled + (scaled.round() - scaled).detach()) * x_scale
    return F.linear(x_, weight, None if bias is None else bias.to(dtype)).to(x.dtype)

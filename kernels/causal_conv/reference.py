"""The causal convolution as its sum, one tap after the other: the definition of correct."""

import torch
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def causal_conv(u: Tensor, kernel: Tensor) -> Tensor:
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, kernel = u.to(dtype).repeat_interleave(kernel.shape[0] // u.shape[-1], dim=-1), kernel.to(dtype)
    y = kernel[:, 0] * x
    for j in range(1, min(u.shape[1], kernel.shape[1])):
        past = torch.cat([torch.zeros_like(x[:, :j]), x[:, :-j]], dim=1)
        y = y + kernel[:, j] * past
    return y.to(u.dtype)

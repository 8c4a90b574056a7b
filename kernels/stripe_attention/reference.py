"""Attention stripe by stripe: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.stripe_attention._stripes import Branch, branches

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def stripe_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    size: tuple[int, int],
    stripe: int,
    lepe_weight: Tensor | None = None,
    lepe_bias: Tensor | None = None,
    pad: bool = False,
    scale: float | None = None,
) -> Tensor:
    h, d = q.shape[1], q.shape[3]
    scale = d**-0.5 if scale is None else scale
    outputs = []
    for branch in branches(h, size, stripe, pad):
        heads = branch.heads
        weight = None if lepe_weight is None else lepe_weight.unflatten(0, (h, d))[heads].flatten(0, 1)
        bias = None if lepe_bias is None else lepe_bias.unflatten(0, (h, d))[heads].flatten()
        dim, length = (3, branch.width) if branch.rows == 1 else (2, branch.height)
        stripes = zip(*(padded(x[:, heads], size, branch).split(length, dim) for x in (q, k, v)), strict=True)
        y = torch.cat([_attend(*stripe, weight, bias, scale) for stripe in stripes], dim)
        y = y[:, :, branch.top : branch.top + size[0], branch.left : branch.left + size[1]]
        outputs.append(y.flatten(2, 3))
    return torch.cat(outputs, 1)


def padded(x: Tensor, size: tuple[int, int], branch: Branch) -> Tensor:
    """(B, h, H * W, d) -> (B, h, all rows, all columns, d), zeros around the map where stripes reach beyond it."""
    below = branch.rows * branch.height - size[0] - branch.top
    right = branch.columns * branch.width - size[1] - branch.left
    x = x.unflatten(2, size)
    return F.pad(x, (0, 0, branch.left, right, branch.top, below)) if max(below, right) > 0 else x


def _attend(q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None, bias: Tensor | None, scale: float) -> Tensor:
    """Within one stripe, (B, h, height, width, d)."""
    q_, k_, v_ = (x.flatten(2, 3) for x in (q, k, v))
    y = (torch.softmax(scale * q_ @ k_.transpose(-1, -2), -1) @ v_).view_as(v)
    if weight is None:
        return y
    image = v.permute(0, 1, 4, 2, 3).flatten(1, 2)
    bias = None if bias is None else bias.to(v.dtype)
    lepe = F.conv2d(image, weight.to(v.dtype), bias, padding=1, groups=len(weight))
    return y + lepe.unflatten(1, (v.shape[1], v.shape[4])).permute(0, 1, 3, 4, 2)

"""Stripe attention by cutting the map into stripes, which go through `attention` as more heads.

Shapes: B batch, h heads of a branch, R x C stripes of `height` x `width` pixels, n = height * width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention import attention
from kernels.stripe_attention._stripes import Branch, branches
from kernels.stripe_attention.reference import padded

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


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
    outputs = []
    for branch in branches(h, size, stripe, pad):
        q_, k_, v_ = (padded(x[:, branch.heads], size, branch) for x in (q, k, v))
        y = _joined(attention(*(_cut(x, branch) for x in (q_, k_, v_)), scale=scale), branch, v_.shape[1])
        if lepe_weight is not None:
            channels = slice(branch.heads.start * d, branch.heads.stop * d)
            bias = None if lepe_bias is None else lepe_bias[channels].to(v.dtype)
            y = y + _lepe(v_, lepe_weight[channels].to(v.dtype), bias, branch)
        outputs.append(y[:, branch.top : branch.top + size[0], branch.left : branch.left + size[1]])
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 3)
    return y.flatten(1, 2).transpose(1, 2)


def _cut(x: Tensor, branch: Branch) -> Tensor:
    """The stripes as heads: (B, h, R * height, C * width, d) -> (B, h * R * C, n, d)."""
    x = x.unflatten(3, (branch.columns, branch.width)).unflatten(2, (branch.rows, branch.height))
    return x.transpose(3, 4).flatten(4, 5).flatten(1, 3)


def _joined(x: Tensor, branch: Branch, heads: int) -> Tensor:
    """The reverse of `_cut`, with the heads behind: (B, R * height, C * width, h, d)."""
    x = x.unflatten(2, (branch.height, branch.width)).unflatten(1, (heads, branch.rows, branch.columns))
    return x.permute(0, 2, 4, 3, 5, 1, 6).flatten(3, 4).flatten(1, 2)


def _lepe(v: Tensor, weight: Tensor, bias: Tensor | None, branch: Branch) -> Tensor:
    """The convolution of every stripe, (B, h, R * height, C * width, d) -> (B, R * height, C * width, h, d).

    Stripes of one pixel are convolved along themselves, in the whole map; the others are cut and go as more images.
    """
    x = v.permute(0, 2, 3, 1, 4).flatten(3)
    B, H, W, channels = x.shape
    cut_rows, cut_columns = branch.rows > 1 and branch.height > 1, branch.columns > 1 and branch.width > 1
    if cut_columns:
        x = x.unflatten(2, (branch.columns, branch.width)).transpose(1, 2).flatten(0, 1)
    if cut_rows:
        x = x.unflatten(1, (branch.rows, branch.height)).flatten(0, 1)
    if branch.width == 1:
        weight = weight[..., 1:2]
    if branch.height == 1:
        weight = weight[..., 1:2, :]
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=channels).permute(0, 2, 3, 1)
    if cut_columns:
        y = y.unflatten(0, (B, branch.columns)).transpose(1, 2)
    return y.reshape(B, H, W, *v.shape[1::3])

"""The 2:4 pattern: of every four consecutive inputs of an output, two weights are kept (GPUSQ-ViT, Yu et al. 2023,
arXiv 2305.10727), with 2 bits for the place of each.

A group of four is stored as two values in their order and one number of 4 bits, the place of the first value (0 to 2)
in the low two and that of the second in the high two; two groups make a byte, the first the low half of it. That takes
half of the weight's bytes and an eighth of a byte per weight: 0.5625 of 16-bit weights, 0.625 of 8-bit ones (and a
scale per output).

Shapes: K inputs, N outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packed24(NamedTuple):
    """A 2:4 weight (N, K)."""

    values: Tensor  # (N, K / 2), those kept
    indices: Tensor  # (N, ceil(K / 8)), uint8
    scale: Tensor | None  # (N,) for int8 values: the weights are scale * values


def mask24(weight: Tensor) -> Tensor:
    """Which weights (..., K) to keep: the two of largest magnitude in each aligned group of four.

    Of equal ones the first, on every device.
    """
    if weight.shape[-1] % 4:
        raise ValueError(
            f"a weight of {weight.shape[-1]} inputs has no 2:4 pattern: the number of inputs must be divisible by 4"
        )
    size = weight.detach().unflatten(-1, (-1, 4)).abs()
    mine, other = size.unsqueeze(-1), size.unsqueeze(-2)
    first = torch.ones(4, 4, dtype=torch.bool, device=weight.device).tril(-1)  # [i, j]: j comes before i
    return ((other > mine) | ((other == mine) & first)).sum(-1).lt(2).flatten(-2)


def pack24(weight: Tensor, mask: Tensor | None = None, *, int8: bool = False) -> Packed24:
    """Stores the weights (N, K) that `mask` keeps, exactly two of each four (`mask24(weight)` where it is None).

    With `int8` they are rounded to -127..127 times a scale per output, max |w| / 127, else kept as they are.
    """
    mask = mask24(weight) if mask is None else mask
    groups = mask.unflatten(-1, (-1, 4))
    if weight.dim() != 2 or mask.shape != weight.shape or not bool((groups.sum(-1) == 2).all()):
        raise ValueError(
            f"pack24: weight {tuple(weight.shape)} and mask {tuple(mask.shape)} must be one (N, K) matrix, and the"
            " mask True for exactly two of each four inputs; mask24(weight) gives such a mask"
        )
    N, K = weight.shape
    values, scale = weight.detach()[mask].view(N, K // 2), None
    if int8:
        scale = values.abs().amax(1).float().clamp(min=1e-12) / 127
        values = (values / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    place = torch.arange(4, device=weight.device, dtype=torch.uint8).expand_as(groups)[groups].view(N, -1, 2)
    nibbles = place[..., 0] | (place[..., 1] << 2)
    if nibbles.shape[1] % 2:
        nibbles = torch.nn.functional.pad(nibbles, (0, 1))
    return Packed24(values, nibbles[:, ::2] | (nibbles[:, 1::2] << 4), scale)


def places(indices: Tensor, groups: int) -> Tensor:
    """The places 0..3 (N, groups, 2), int64, of the kept weights."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=indices.device)
    return ((indices.unsqueeze(-1) >> shifts) & 3).view(indices.shape[0], -1, 2)[:, :groups].long()


def unpack24(values: Tensor, indices: Tensor, scale: Tensor | None = None) -> Tensor:
    """The weight (N, K) with its zeros, times `scale` where given."""
    N, groups = values.shape[0], values.shape[1] // 2
    dense = values.new_zeros(N, groups, 4).scatter(-1, places(indices, groups), values.view(N, groups, 2)).flatten(1)
    return dense if scale is None else dense.to(scale.dtype) * scale[:, None]

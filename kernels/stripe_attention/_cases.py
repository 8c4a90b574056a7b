"""Shapes of CSWin's stripe attention: its laptop preset and the four stages of CSWin-T at 224 x 224."""

import math

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, h: int, side: int, d: int, stripe: int) -> Case:
    """With LePE; every token attends to the tokens of its stripe."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        tensors = (normal(B, h, side * side, d, device=device, dtype=dtype, seed=s) for s in range(3))
        lepe = normal(h * d, 1, 3, 3, device=device, dtype=dtype, seed=3)
        return tuple(tensors), {"size": (side, side), "stripe": stripe, "lepe_weight": lepe}

    N, inside = side * side, side * stripe
    label = f"{label}: B {B}, h {h}, {side} x {side}, d {d}, stripe {stripe}"
    return Case(label, make, 4.0 * B * h * N * inside * d, 8.0 * B * h * N * d)


def dense(q, k, v, *, size: tuple[int, int], stripe: int, lepe_weight: torch.Tensor) -> torch.Tensor:
    """Attention over the whole map, and LePE over it."""
    image = v.transpose(2, 3).reshape(len(v), -1, *size)
    lepe = F.conv2d(image, lepe_weight, padding=1, groups=image.shape[1])
    return F.scaled_dot_product_attention(q, k, v) + lepe.view(*v.shape[:2], -1, math.prod(size)).mT


CHECK = case("check", 1, 2, 6, 16, 2)
CPU = [case("laptop, first stage", 64, 2, 14, 16, 2), case("laptop, second stage", 64, 4, 7, 16, 7)]
GPU = [
    case("CSWin-T stage 1", 64, 2, 56, 32, 1),
    case("CSWin-T stage 2", 64, 4, 28, 32, 2),
    case("CSWin-T stage 3", 64, 8, 14, 32, 7),
    case("CSWin-T stage 1 at 384", 32, 2, 96, 32, 1),
]
BASELINES = {"dense": dense}

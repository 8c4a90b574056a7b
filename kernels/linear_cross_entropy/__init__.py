"""A linear map to a vocabulary and the cross-entropy on it, without the logits of all tokens in memory."""

import torch
from torch import Tensor

from kernels.registry import call

REDUCTIONS = ("mean", "sum", "none")


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """torch's F.cross_entropy(F.linear(x, weight, bias), target, ...), label smoothing s as in Szegedy et al. 2016:

        z_n = W x_n + b,   l_n = log sum_v exp(z_nv) - (1 - s) z_(n, target_n) - s / V sum_v z_nv

    x: (N, d), weight: (V, d), bias: (V,), of one dtype; target: (N,) int64 in [0, V) or ignore_index, whose loss is 0
    -> float32 (float64 for float64 inputs): (N,) for reduction="none", else the sum, or the mean over the tokens that
    are not ignored (0 where all are; torch's is nan there).
    Under autocast it computes in autocast's dtype, as torch's linear does. Not differentiable twice.
    """
    if (
        x.dim() != 2
        or weight.dim() != 2
        or weight.shape[1] != x.shape[1]
        or target.shape != x.shape[:1]
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise ValueError(
            f"linear_cross_entropy: x {tuple(x.shape)}, weight {tuple(weight.shape)}, target {tuple(target.shape)},"
            f" bias {None if bias is None else tuple(bias.shape)} do not fit: expected (N, d), (V, d), (N,), (V,)"
        )
    if target.dtype != torch.int64:
        raise ValueError(f"linear_cross_entropy: target is {target.dtype}, it must be torch.int64")
    if reduction not in REDUCTIONS or not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"linear_cross_entropy: reduction={reduction!r} must be one of {', '.join(REDUCTIONS)} and"
            f" label_smoothing={label_smoothing} in [0, 1]"
        )
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype):
        raise ValueError(
            f"linear_cross_entropy: x is {x.dtype}, weight {weight.dtype},"
            f" bias {None if bias is None else bias.dtype}; they must be of one dtype"
        )
    return call(
        "linear_cross_entropy",
        x,
        weight,
        target,
        bias=bias,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )

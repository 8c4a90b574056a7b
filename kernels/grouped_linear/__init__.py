"""One linear map per group of rows: the experts of a mixture-of-experts layer (BigMac 2025, arXiv 2502.16927, eq. 2).

`permute` sorts tokens by expert and `unpermute` takes the experts' rows back to the tokens.
"""

import torch
from torch import Tensor

from kernels.grouped_linear._permute import permute, unpermute
from kernels.registry import call

__all__ = ["grouped_linear", "permute", "unpermute"]


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None = None) -> Tensor:
    """Applies to each row the linear map of the expert it is sorted to, without telling the host how many those are:

        y_n = x_n W_i^T + b_i   for the rows  sum_(j<i) counts_j <= n < sum_(j<=i) counts_j

    x: (N, in), sorted by expert; weight: (e, out, in) and bias: (e, out) of its dtype -> (N, out) in that dtype.
    counts: (e,) int32 or int64, on x's device, >= 0 (an expert may have no row: its gradients are zeros). They add up
    to N or less: rows after the last expert's give zeros and get no gradient. More than N is a ValueError on a CPU.
    Under autocast it computes in autocast's dtype, as torch's linear does.
    """
    if (
        x.dim() != 2
        or weight.dim() != 3
        or weight.shape[2] != x.shape[1]
        or counts.shape != weight.shape[:1]
        or (bias is not None and bias.shape != weight.shape[:2])
    ):
        raise ValueError(
            f"grouped_linear: x {tuple(x.shape)}, weight {tuple(weight.shape)}, counts {tuple(counts.shape)}, bias"
            f" {None if bias is None else tuple(bias.shape)} do not fit: expected (N, in), (e, out, in), (e,), (e, out)"
        )
    if counts.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"grouped_linear: counts is {counts.dtype}, it must be torch.int32 or torch.int64")
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype):
        raise ValueError(
            f"grouped_linear: x is {x.dtype}, weight {weight.dtype}, bias {None if bias is None else bias.dtype};"
            " they must be of one dtype"
        )
    return call("grouped_linear", x, weight, counts, bias)

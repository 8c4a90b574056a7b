"""One torch linear per expert, one after the other: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None = None) -> Tensor:
    sizes = counts.tolist()
    rest = x.shape[0] - sum(sizes)
    if rest < 0 or min(sizes) < 0:
        raise ValueError(
            f"grouped_linear: counts {sizes} must be >= 0 and add up to at most the {x.shape[0]} rows of x"
        )
    groups = x.split([*sizes, rest])
    y = [F.linear(rows, weight[i], None if bias is None else bias[i]) for i, rows in enumerate(groups[:-1])]
    return torch.cat([*y, x.new_zeros(rest, weight.shape[1])])

"""What the backends of the matrix profile share."""

import torch
from torch import Tensor


def z_normalised(windows: Tensor, eps: float) -> Tensor:
    """Windows (B, n, l) less their mean, over their standard deviation plus eps, in float32 at least."""
    windows = windows.to(torch.promote_types(windows.dtype, torch.float32))
    windows = windows - windows.mean(-1, keepdim=True)
    return windows / (windows.square().mean(-1, keepdim=True).sqrt() + eps)

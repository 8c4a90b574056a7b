"""Seasonal-trend decomposition by a moving average (Autoformer, Wu et al. 2021, arXiv 2106.13008, eq. 1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models import checks


class SeriesDecomposition(nn.Module):
    """(B, C, L) -> (season, trend), both (B, C, L): trend = average over `window` steps, season = x - trend.

    Both ends are continued by their own first and last value. `length` is L, which the window must not exceed.
    """

    def __init__(self, window: int, length: int):
        super().__init__()
        checks.whole("moving_average", window)
        if window % 2 == 0 or window < 3 or window > length:
            raise ValueError(
                f"moving_average={window} must be odd, at least 3 and at most the look-back of {length} steps"
            )
        self.window = window

    def forward(self, x_BCL: Tensor) -> tuple[Tensor, Tensor]:
        side = self.window // 2
        trend = F.avg_pool1d(F.pad(x_BCL, (side, side), mode="replicate"), self.window, stride=1)
        return x_BCL - trend, trend

"""Seasonal-trend decomposition by a moving average (Autoformer, Wu et al. 2021, arXiv 2106.13008, eq. 1).

Shapes: B batch, L steps, C channels.
"""

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
                f"moving_average={window} must be odd, at least 3 and at most the {length} steps that it averages over"
            )
        self.window = window

    def forward(self, x_BCL: Tensor) -> tuple[Tensor, Tensor]:
        side = self.window // 2
        trend = F.avg_pool1d(F.pad(x_BCL, (side, side), mode="replicate"), self.window, stride=1)
        return x_BCL - trend, trend

    def of_steps(self, x_BLC: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the steps in the middle: (B, L, C) -> (season, trend), both (B, L, C)."""
        season, trend = self(x_BLC.transpose(1, 2))
        return season.transpose(1, 2), trend.transpose(1, 2)


class Season(nn.Module):
    """The season alone, (B, L, C) -> (B, L, C): stands where a block has its layer norm."""

    def __init__(self, window: int, length: int):
        super().__init__()
        self.split = SeriesDecomposition(window, length)

    def forward(self, x_BLC: Tensor) -> Tensor:
        return self.split.of_steps(x_BLC)[0]


class SeasonNorm(nn.LayerNorm):
    """LayerNorm(x) minus its mean over time, since a season has no level: (B, L, C) -> (B, L, C)."""

    def forward(self, x_BLC: Tensor) -> Tensor:
        z = super().forward(x_BLC)
        return z - z.mean(dim=1, keepdim=True)

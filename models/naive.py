"""Forecasts and fillings without parameters, the floors every model should beat (Hyndman & Athanasopoulos,
Forecasting, 5.2).

Shapes: B batch, L look-back, H horizon, N variates. All take and ignore time features.
"""

import torch
from torch import Tensor, nn

from models import checks


class LastValue(nn.Module):
    """Repeats the last value of the window ("Repeat" in arXiv 2205.13504): (B, L, N) -> (B, H, N)."""

    any_variates = True

    def __init__(self, horizon: int):
        super().__init__()
        checks.whole("horizon", horizon)
        self.horizon = horizon

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        return x_BLN[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(nn.Module):
    """Repeats the window's last season: y_h = x_(L - season + h mod season), (B, L, N) -> (B, H, N)."""

    any_variates = True

    def __init__(self, horizon: int, season: int, lookback: int):
        super().__init__()
        for name, value in {"horizon": horizon, "season": season, "lookback": lookback}.items():
            checks.whole(name, value)
        if lookback < season:
            raise ValueError(
                f"lookback={lookback} is shorter than season={season}: the seasonal forecast repeats a whole season;"
                f" set data.lookback to {season} or more, or use model=last_value"
            )
        self.horizon, self.season = horizon, season

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        times = -(-self.horizon // self.season)
        return x_BLN[:, -self.season :].repeat(1, times, 1)[:, : self.horizon]


class TrainMean(nn.Module):
    """Always 0, which the scaling makes the mean of the training rows: (B, L, N) -> (B, H, N)."""

    any_variates = True
    fills_holes = True

    def __init__(self, horizon: int):
        super().__init__()
        checks.whole("horizon", horizon)
        self.horizon = horizon

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        return x_BLN.new_zeros(len(x_BLN), self.horizon, x_BLN.shape[2])


class Interpolation(nn.Module):
    """Fills the holes (NaN) of a window on the line between the seen neighbours in time: (B, L, N) -> (B, L, N).

    Before the first and after the last seen value that value is held; a series without any becomes 0.
    """

    any_variates = True
    fills_holes = True

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        L = x_BLN.shape[1]
        step = torch.arange(L, device=x_BLN.device)[:, None].expand_as(x_BLN)
        hole = x_BLN.isnan()
        before = step.masked_fill(hole, -1).cummax(1).values
        after = step.masked_fill(hole, L).flip(1).cummin(1).values.flip(1)
        left = torch.where(before < 0, after, before).clamp_max(L - 1)
        right = torch.where(after == L, before, after).clamp_min(0)
        seen = x_BLN.nan_to_num()
        start, end = seen.gather(1, left), seen.gather(1, right)
        return start + (end - start) * (step - left) / (right - left).clamp_min(1)

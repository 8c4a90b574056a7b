"""Forecasts without parameters, the floors every model should beat (Hyndman & Athanasopoulos, Forecasting, 5.2).

Shapes: B batch, L look-back, H horizon, N variates. Both take and ignore time features.
"""

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

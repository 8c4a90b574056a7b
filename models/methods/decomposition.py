"""Seasonal-trend decomposition around any forecaster (the split of Autoformer, Wu et al. 2021, arXiv 2106.13008, with
the linear trend of DLinear, Zeng et al. 2022, arXiv 2205.13504).

Shapes: B batch, L look-back, H horizon, N variates, T time features.
"""

from torch import Tensor, nn

from models import checks
from models.layers.decomposition import SeriesDecomposition
from models.linear import TimeLinear


class Decomposition:
    """Method: the forecaster sees the season alone, a linear map forecasts the trend.

    lookback, horizon: L and H of the forecaster. moving_average: steps that the trend averages over, odd, below L.
    Adds L H + H parameters, shared by all variates.
    """

    def __init__(self, lookback: int, horizon: int, moving_average: int = 25):
        for name, value in {"lookback": lookback, "horizon": horizon, "moving_average": moving_average}.items():
            checks.whole(name, value)
        if moving_average >= lookback:
            raise ValueError(
                f"lookback={lookback} is not above moving_average={moving_average}: choose a longer look-back or a"
                " shorter average"
            )
        self.lookback, self.horizon, self.moving_average = lookback, horizon, moving_average

    def apply(self, model: nn.Module) -> "Decomposed":
        """The forecaster with the decomposition around it."""
        return Decomposed(model, self.lookback, self.horizon, self.moving_average)


class Decomposed(nn.Module):
    """y = forecaster(season) + W trend + b: (B, L, N) -> (B, H, N). Time features go to the forecaster."""

    def __init__(self, forecaster: nn.Module, lookback: int, horizon: int, moving_average: int):
        super().__init__()
        self.any_variates = getattr(forecaster, "any_variates", False)
        self.forecaster = forecaster
        self.split = SeriesDecomposition(moving_average, lookback)
        self.trend = TimeLinear(lookback, horizon, variates=1)  # one W for all variates, however many

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        season, trend = self.split(x_BLN.transpose(1, 2))
        y_BHN = self.forecaster(season.transpose(1, 2), marks_BLT, future_marks_BHT)
        return y_BHN + self.trend(trend).transpose(1, 2)

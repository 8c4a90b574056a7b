"""Linear, NLinear, DLinear: Are Transformers Effective for Time Series Forecasting? (Zeng 2022, arXiv 2205.13504).

Notable:
- one linear map from the look-back to the horizon, per variate, its weights shared by all or `individual`
- NLinear subtracts the last value and adds it to the forecast; DLinear maps season and trend separately
- the released code starts the weights from 1/L in its first version (`init=ones`): readable weight plots, and the
  paper's Exchange rows depend on it

Shapes: B batch, L look-back, H horizon, N variates. All take and ignore time features.
"""

import torch
from torch import Tensor, nn

from models import checks
from models.layers.decomposition import SeriesDecomposition


class TimeLinear(nn.Module):
    """y = W x + b along the last axis: (B, N, L) -> (B, N, H), with one W for all variates or one for each.

    Parameters: L H + H, times N where individual. init: "default" (uniform within 1/sqrt(L), as torch.nn.Linear) or
    "ones" (every weight 1/L).
    """

    def __init__(self, lookback: int, horizon: int, variates: int, individual: bool = False, init: str = "default"):
        super().__init__()
        for name, value in {"lookback": lookback, "horizon": horizon, "variates": variates}.items():
            checks.whole(name, value)
        checks.switch("individual", individual)
        checks.choice("init", init, ("default", "ones"))
        self.lookback, self.individual = lookback, individual
        shape = (variates,) if individual else ()
        self.weight = nn.Parameter(torch.empty(*shape, horizon, lookback))
        self.bias = nn.Parameter(torch.empty(*shape, horizon))
        bound = lookback**-0.5
        if init == "ones":
            nn.init.constant_(self.weight, 1 / lookback)
        else:
            nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x_BNL: Tensor) -> Tensor:
        N, L = x_BNL.shape[1:]
        if self.lookback != L:
            raise ValueError(f"the window has {L} steps, the model was built for lookback={self.lookback}")
        if not self.individual:
            return nn.functional.linear(x_BNL, self.weight, self.bias)
        if len(self.weight) != N:
            raise ValueError(
                f"the data has {N} variates, but individual=true ties the weights to variates={len(self.weight)}:"
                " use the same columns, or train with individual=false"
            )
        y_NBH = torch.baddbmm(self.bias[:, None], x_BNL.transpose(0, 1), self.weight.transpose(1, 2))
        return y_NBH.transpose(0, 1)


class Linear(nn.Module):
    """y = W x + b: (B, L, N) -> (B, H, N)."""

    def __init__(self, lookback: int, horizon: int, variates: int, individual: bool = False, init: str = "default"):
        super().__init__()
        self.any_variates = not individual
        self.map = TimeLinear(lookback, horizon, variates, individual, init)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        return self.map(x_BLN.transpose(1, 2)).transpose(1, 2)


class NLinear(Linear):
    """y = W (x - last) + b + last, with the window's last value: (B, L, N) -> (B, H, N)."""

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        last = x_BLN[:, -1:].detach()
        return super().forward(x_BLN - last) + last


class DLinear(nn.Module):
    """y = W_s season + b_s + W_t trend + b_t, with the trend a moving average: (B, L, N) -> (B, H, N)."""

    def __init__(
        self,
        lookback: int,
        horizon: int,
        variates: int,
        individual: bool = False,
        init: str = "default",
        moving_average: int = 25,
    ):
        super().__init__()
        self.any_variates = not individual
        self.season = TimeLinear(lookback, horizon, variates, individual, init)
        self.trend = TimeLinear(lookback, horizon, variates, individual, init)
        self.decompose = SeriesDecomposition(moving_average, lookback)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        season, trend = self.decompose(x_BLN.transpose(1, 2))
        return (self.season(season) + self.trend(trend)).transpose(1, 2)

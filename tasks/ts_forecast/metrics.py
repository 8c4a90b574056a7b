"""Forecast errors per horizon step and per variate, on the scaled and on the original scale."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ForecastErrors(Metric):
    """Sums errors over windows, so that every window counts the same whatever the batches.

    MSE and MAE are on the scaled values (the papers' convention). With `std`, `mean`, `naive_scale` also, in original
    units: MSE, MAE, sMAPE = mean 2|y - f| / (|y| + |f|) in [0, 2], and MASE = MAE / in-sample MAE of the seasonal naive
    (Hyndman & Koehler 2006), averaged over variates.

    Args:
        horizon: H.
        variates: N.
        mean, std: (N,) of the train rows, original units; None leaves the original scale out.
        naive_scale: (N,) in-sample MAE of the seasonal naive, original units.
    """

    full_state_update = False

    def __init__(
        self,
        horizon: int,
        variates: int,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        naive_scale: Tensor | None = None,
    ):
        super().__init__()
        for name in ("squared", "absolute", "symmetric"):
            self.add_state(name, torch.zeros(horizon, variates), dist_reduce_fx="sum")
        self.add_state("windows", torch.tensor(0), dist_reduce_fx="sum")
        self.original = std is not None
        for name, value in (("mean", mean), ("std", std), ("naive_scale", naive_scale)):
            self.register_buffer(name, None if value is None else value.float(), persistent=False)

    def update(self, forecast: Tensor, truth: Tensor) -> None:
        """Adds a batch; both (B, H, N), scaled."""
        error = forecast - truth
        self.squared += error.square().sum(0)
        self.absolute += error.abs().sum(0)
        self.windows += len(error)
        if self.original:
            f, y = (v * self.std + self.mean for v in (forecast, truth))
            self.symmetric += (2 * (y - f).abs() / (y.abs() + f.abs()).clamp_min(1e-8)).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name."""
        mse, mae = self.squared / self.windows, self.absolute / self.windows
        scores = {"mse": mse.mean(), "mae": mae.mean()}
        if self.original:
            scores["mse_original"] = (mse * self.std**2).mean()
            scores["mae_original"] = (mae * self.std).mean()
            scores["smape"] = (self.symmetric / self.windows).mean()
            scores["mase"] = (mae.mean(0) * self.std / self.naive_scale).nanmean()
        return scores

    def details(self) -> dict[str, list[float]]:
        """MSE and MAE (scaled) per horizon step and per variate, over the windows of all processes."""
        with self.sync_context():
            mse, mae = self.squared / self.windows, self.absolute / self.windows
        return {
            "mse_per_step": mse.mean(1).tolist(),
            "mae_per_step": mae.mean(1).tolist(),
            "mse_per_variate": mse.mean(0).tolist(),
            "mae_per_variate": mae.mean(0).tolist(),
        }

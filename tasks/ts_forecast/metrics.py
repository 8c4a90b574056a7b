"""Forecast errors per horizon step and per variate, on the scaled and on the original scale."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ForecastErrors(Metric):
    """Sums errors over windows, so that every value counts the same whatever the batches.

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
        self.add_state("counts", torch.zeros(horizon, variates, dtype=torch.long), dist_reduce_fx="sum")
        self.original = std is not None
        for name, value in (("mean", mean), ("std", std), ("naive_scale", naive_scale)):
            self.register_buffer(name, None if value is None else value.float(), persistent=False)

    def update(self, forecast: Tensor, truth: Tensor, counted: Tensor | None = None) -> None:
        """Adds a batch; all (B, H, N), the values scaled. counted: which of them count (bool), None for all."""
        counted = torch.ones_like(truth, dtype=torch.bool) if counted is None else counted
        error = (forecast - truth) * counted
        self.squared += error.square().sum(0)
        self.absolute += error.abs().sum(0)
        self.counts += counted.sum(0)
        if self.original:
            f, y = (v * self.std + self.mean for v in (forecast, truth))
            self.symmetric += (counted * 2 * (y - f).abs() / (y.abs() + f.abs()).clamp_min(1e-8)).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name."""
        count = self.counts.sum()
        scores = {"mse": self.squared.sum() / count, "mae": self.absolute.sum() / count}
        if self.original:
            scores["mse_original"] = (self.squared * self.std**2).sum() / count
            scores["mae_original"] = (self.absolute * self.std).sum() / count
            scores["smape"] = self.symmetric.sum() / count
            mae = self.absolute.sum(0) / self.counts.sum(0)
            scores["mase"] = (mae * self.std / self.naive_scale).nanmean()
        return scores

    def details(self) -> dict[str, list[float]]:
        """MSE and MAE (scaled) per horizon step and per variate, over the windows of all processes."""
        with self.sync_context():
            errors = {"mse": self.squared, "mae": self.absolute}
            return {
                f"{name}_per_{what}": (sums.sum(axis) / self.counts.sum(axis)).tolist()
                for what, axis in (("step", 1), ("variate", 0))
                for name, sums in errors.items()
            }

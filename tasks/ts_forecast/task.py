"""Time-series forecasting and imputation: loss, metrics, baselines, figures, forecasts of files, for any forecaster.

A forecaster maps x (B, L, N) and, optionally, time features of past (B, L, T) and horizon (B, H, T) to (B, H, N).
With H = L it can also fill holes (`task.imputation`, the benchmark of arXiv 2210.02186, sec. 4.3): part of a window is
hidden, the model returns the whole window, and what it says of the hidden values counts.
Shapes: B batch, L look-back, H horizon, N variates, T time features.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.data import TaskData
from tasks.schedules import Schedule, constant
from tasks.task import Optimizer, Task
from tasks.ts_forecast.metrics import ForecastErrors
from tasks.ts_forecast.windows import drawn

log = logging.getLogger(__name__)

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}
Batch = dict[str, Tensor]


class Forecast(Task):
    """Direct multi-step forecasting of scaled values.

    Args:
        model: the forecaster.
        loss: `mse`, `mae` or `huber`.
        train_variates: share of the variates that training sees, or None for all; validation and test always have all.
        resample_variates: draw that share anew every step (efficient training), or take the first ones (unseen ones).
        imputation: share of a window's (step, variate) values to hide and fill, each with that probability; None
            forecasts. Training hides others every step; validation and test the same ones whenever they are asked.
        baselines: forecasters without parameters, scored on the test split beside the model; with `imputation` those
            that fill holes, which they see as NaN.

    Raises:
        ValueError: unknown loss; a share outside (0, 1]; a share below 1 with a model that is tied to its variates.
    """

    logged = (
        *("val/mse", "val/mae"),
        *("test/mse", "test/mae", "test/mse_original", "test/mae_original", "test/smape", "test/mase"),
        *("figures/forecast", "figures/attention"),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        schedule: Schedule = constant,
        loss: str = "mse",
        train_variates: float | None = None,
        resample_variates: bool = True,
        imputation: float | None = None,
        baselines: dict[str, nn.Module] | None = None,
        monitor: str = "val/mse",
        direction: str = "min",
    ):
        super().__init__(model, optimizer, schedule, monitor, direction)
        if loss not in LOSSES:
            raise ValueError(f"task.loss={loss!r}: choose from {', '.join(LOSSES)}")
        if train_variates is not None and not 0 < train_variates <= 1:
            raise ValueError(f"task.train_variates={train_variates}: choose a share in (0, 1], or null for all")
        if train_variates is not None and not getattr(model, "any_variates", False):
            raise ValueError(
                f"task.train_variates={train_variates}: {type(model).__name__} is built for one number of variates; "
                "leave it null, or choose a model that takes any (model=itransformer)"
            )
        if imputation is not None and not 0 < imputation < 1:
            raise ValueError(f"task.imputation={imputation}: choose a share in (0, 1), or null to forecast")
        self.loss = LOSSES[loss]
        self.train_variates = train_variates
        self.resample_variates = resample_variates
        self.imputation = imputation
        self.baselines = nn.ModuleDict(self.usable(baselines or {}))

    def usable(self, baselines: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The baselines that do what the task asks; the others are left out with a log line."""
        if self.imputation is None:
            return baselines
        filling = {name: baseline for name, baseline in baselines.items() if getattr(baseline, "fills_holes", False)}
        for name in baselines:
            if name not in filling:
                log.info("baseline %s is left out: it fills no holes (task=ts_imputation has those that do)", name)
        return filling

    def forward(self, batch: Batch) -> Tensor:
        """(B, H, N) scaled forecasts of a batch."""
        return self.model(batch["x"], batch.get("marks"), batch.get("future_marks"))

    def prepare(self, data: TaskData) -> None:
        """Imputation needs windows as long as the look-back, and takes its inputs from the targets.

        Raises:
            ValueError: with `imputation`, another horizon than the look-back, or options of the inputs alone.
        """
        if self.imputation is None:
            return
        if data.horizon != data.lookback:
            raise ValueError(
                f"task.imputation={self.imputation}: the model returns the window it sees, so data.horizon="
                f"{data.horizon} must be data.lookback={data.lookback}: set data.horizon={data.lookback}"
            )
        if data.input_noise or data.input_shuffle != "none":
            raise ValueError(
                "task.imputation knows neither data.input_noise nor data.input_shuffle: leave them at 0 and none"
            )

    def setup(self, stage: str) -> None:
        """Metrics of the data at hand: its number of variates and its scale."""
        data = self.trainer.datamodule
        shape = (data.horizon, len(data.columns))
        self.val_errors = ForecastErrors(*shape)
        scale = {"mean": data.mean, "std": data.std, "naive_scale": data.naive_scale}
        self.test_errors = nn.ModuleDict({name: ForecastErrors(*shape, **scale) for name in ("model", *self.baselines)})

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of one batch."""
        if self.train_variates is not None:
            batch = self.some_variates(batch)
        if self.imputation is None:
            return self.loss(self(batch), batch["y"])
        batch = hide(batch, torch.rand_like(batch["y"]) < self.imputation)
        hidden = batch["hidden"]
        total = self.loss(self(batch)[hidden], batch["y"][hidden], reduction="sum")
        return total / hidden.sum().clamp_min(1)

    def asked(self, batch: Batch) -> Batch:
        """The batch as validation and test ask it: as it is, or with holes that are a function of seed and window."""
        if self.imputation is None:
            return batch
        seed, shape = self.trainer.datamodule.seed, batch["y"].shape[1:]
        uniform = drawn(torch.rand, seed, "imputation", batch["window"], *shape)
        return hide(batch, uniform.to(batch["y"].device) < self.imputation)

    def some_variates(self, batch: Batch) -> Batch:
        """The batch with `train_variates` of its variates."""
        variates = batch["x"].shape[-1]
        count = max(1, round(self.train_variates * variates))
        order = torch.randperm(variates) if self.resample_variates else torch.arange(variates)
        chosen = order[:count].to(batch["x"].device)
        return batch | {"x": batch["x"][..., chosen], "y": batch["y"][..., chosen]}

    def validation_step(self, batch: Batch, _: int) -> None:
        """Adds a batch to the validation errors."""
        batch = self.asked(batch)
        self.val_errors.update(self(batch), batch["y"], batch.get("hidden"))

    def on_validation_epoch_end(self) -> None:
        """Logs `val/mse` and `val/mae`."""
        self.log_dict({f"val/{name}": value for name, value in self.val_errors.compute().items()})
        self.val_errors.reset()

    def test_step(self, batch: Batch, _: int) -> None:
        """Adds a batch to the test errors of the model and of every baseline."""
        batch = self.asked(batch)
        hidden = batch.get("hidden")
        self.test_errors["model"].update(self(batch), batch["y"], hidden)
        x = batch["x"] if hidden is None else batch["x"].masked_fill(hidden, math.nan)
        for name, baseline in self.baselines.items():
            self.test_errors[name].update(baseline(x), batch["y"], hidden)

    def on_test_epoch_end(self) -> None:
        """Logs `test/*`; keeps the baselines' metrics and the details for results.json."""
        scores = {
            name: {f"test/{metric}": value for metric, value in errors.compute().items()}
            for name, errors in self.test_errors.items()
        }
        self.log_dict(scores.pop("model"))
        self.baseline_metrics = {name: {k: float(v) for k, v in rows.items()} for name, rows in scores.items()}
        self.details = self.test_errors["model"].details() | {"variates": list(self.trainer.datamodule.columns)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The scale of the data goes with the weights: forecasts of new files need no training data."""
        data = self.trainer.datamodule
        checkpoint["scale"] = {"mean": data.mean, "std": data.std, "columns": list(data.columns)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the training data's scale out of a checkpoint: mean and std (N,), and the names of the N columns."""
        self.scale = checkpoint["scale"]

    @staticmethod
    def example_inputs(data: dict[str, Any], batch: int, device: torch.device) -> tuple[Tensor, ...]:
        """x, marks and future marks as the data config states them."""
        x = torch.empty(batch, data["lookback"], data["variates"], device=device)
        if not data["marks"]:
            return (x,)
        return x, *(torch.empty(batch, data[span], data["marks"], device=device) for span in ("lookback", "horizon"))

    def figures(self) -> Iterator[tuple[str, Any]]:
        """Forecasts or filled holes against truth; attention between tokens where the model has attention."""
        from tasks.ts_forecast import figures

        return figures.draw(self)

    def predictions(self) -> tuple[list[str], list[list[Any]]]:
        """Forecast (or filling) and truth of the last test window, every variate, original units."""
        from tasks.ts_forecast import figures

        return figures.table(self)

    def predict_file(self, data: dict[str, Any], source: Path, target: Path) -> str:
        """Forecasts the steps that follow a CSV, or fills its holes; see `tasks.ts_forecast.predict`."""
        from tasks.ts_forecast import predict

        return (predict.forecast_file if self.imputation is None else predict.fill_file)(self, data, source, target)


def hide(batch: Batch, hidden: Tensor) -> Batch:
    """The batch whose window is what was to be forecast, with 0 in place of its `hidden` (B, H, N) values.

    So every window lies within its own split, and every row of validation and test stands in one.
    """
    asked = {"x": batch["y"].masked_fill(hidden, 0.0), "y": batch["y"], "hidden": hidden}
    if "future_marks" in batch:
        asked |= {"marks": batch["future_marks"], "future_marks": batch["future_marks"]}
    return asked

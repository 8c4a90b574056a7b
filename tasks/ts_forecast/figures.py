"""Figures and the table of a forecasting run: forecast against truth, and attention between tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tasks import attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.ts_forecast.task import Forecast

WINDOWS, VARIATES = 3, 3
"""How many test windows and variates the forecast figure shows."""


def draw(task: "Forecast") -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) pairs of the task's present weights on the test split."""
    data = task.trainer.datamodule
    count = len(data.test)
    picked = torch.linspace(0, count - 1, min(WINDOWS, count)).long()
    batch = {key: value.to(task.device) for key, value in data.test[picked].items()}
    weights = attention.AttentionWeights(task.model)
    with torch.inference_mode(), weights:
        forecast = task.eval()(batch)
    yield "forecast", forecasts(batch["x"].cpu(), batch["y"].cpu(), forecast.cpu(), data, picked)
    if weights.maps:
        yield "attention", attention.draw(weights.maps, data.columns)


def original(values: Tensor, data: Any) -> Tensor:
    """Scaled values (..., N) in original units."""
    return values.double() * data.std + data.mean


def forecasts(x: Tensor, y: Tensor, forecast: Tensor, data: Any, picked: Tensor) -> "Figure":
    """A grid: one row per window, one column per variate; the past, the truth and the forecast in original units."""
    import matplotlib.pyplot as plt

    columns = torch.linspace(0, len(data.columns) - 1, min(VARIATES, len(data.columns))).long().tolist()
    rows = len(picked)
    figure, axes = plt.subplots(
        rows, len(columns), figsize=(4.2 * len(columns), 2.3 * rows), squeeze=False, layout="constrained"
    )
    past, truth, ours = (original(v, data) for v in (x, y, forecast))
    lookback, horizon = x.shape[1], y.shape[1]
    shown = min(lookback, 2 * horizon)
    for row in range(rows):
        dates = data.window_dates("test", int(picked[row]))
        steps = range(-shown, horizon) if dates is None else dates[lookback - shown :]
        for column, variate in enumerate(columns):
            panel = axes[row][column]
            panel.plot(steps[:shown], past[row, -shown:, variate], color="0.6", label="past")
            panel.plot(steps[shown:], truth[row, :, variate], color="black", label="truth")
            panel.plot(steps[shown:], ours[row, :, variate], color="tab:orange", label="forecast")
            panel.tick_params(axis="x", labelrotation=20, labelsize=7)
            panel.grid(alpha=0.3)
            if row == 0:
                panel.set_title(data.columns[variate], fontsize=9)
    axes[0][0].legend(fontsize=7)
    return figure


def table(task: "Forecast") -> tuple[list[str], list[list[Any]]]:
    """The last test window: one row per step, truth and forecast of every variate in original units."""
    data = task.trainer.datamodule
    last = torch.tensor([len(data.test) - 1])
    batch = {key: value.to(task.device) for key, value in data.test[last].items()}
    with torch.inference_mode():
        forecast = original(task.eval()(batch).cpu()[0], data)
    truth = original(batch["y"].cpu()[0], data)
    dates = data.window_dates("test", int(last))
    steps = list(range(1, len(truth) + 1)) if dates is None else [str(d) for d in dates[-len(truth) :]]
    columns = ["step", *(f"{name} {kind}" for name in data.columns for kind in ("truth", "forecast"))]
    pairs = torch.stack([truth, forecast], -1).flatten(1).tolist()
    return columns, [[step, *values] for step, values in zip(steps, pairs, strict=True)]

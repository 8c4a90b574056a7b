"""Figures and the table of a forecasting run: forecast or filled holes against truth, and attention between tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks import attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.ts_forecast.task import Forecast

WINDOWS, VARIATES = 3, 3
"""How many test windows and variates a figure shows."""


def draw(task: "Forecast") -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) pairs of the task's present weights on the test split."""
    data = task.trainer.datamodule
    count = len(data.test)
    picked = torch.linspace(0, count - 1, min(WINDOWS, count)).long()
    weights = attention.AttentionWeights(task.model)
    with weights:
        batch, forecast = answered(task, picked)
    if task.imputation is None:
        yield "forecast", forecasts(batch["x"], batch["y"], forecast, data, picked)
    else:
        yield "imputation", imputations(batch["y"], batch["hidden"], forecast, data, picked)
    if weights.maps:
        yield "attention", attention.draw(weights.maps, data.columns)


def answered(task: "Forecast", index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Test windows as the task asks them, and the model's answer (B, H, N), scaled, on the CPU."""
    batch = {key: value.to(task.device) for key, value in task.trainer.datamodule.test[index].items()}
    with torch.inference_mode():
        batch = task.asked(batch)
        answer = task.eval()(batch)
    return {key: value.cpu() for key, value in batch.items()}, answer.cpu()


def original(values: Tensor, data: Any) -> Tensor:
    """Scaled values (..., N) in original units."""
    return values.double() * data.std + data.mean


def forecasts(x: Tensor, y: Tensor, forecast: Tensor, data: Any, picked: Tensor) -> "Figure":
    """A grid: one row per window, one column per variate; the past, the truth and the forecast in original units."""
    figure, axes, columns = grid(len(picked), data)
    past, truth, ours = (original(v, data) for v in (x, y, forecast))
    lookback, horizon = x.shape[1], y.shape[1]
    shown = min(lookback, 2 * horizon)
    for row in range(len(picked)):
        dates = data.window_dates("test", int(picked[row]))
        steps = range(-shown, horizon) if dates is None else dates[lookback - shown :]
        for column, variate in enumerate(columns):
            panel = axes[row][column]
            panel.plot(steps[:shown], past[row, -shown:, variate], color="0.6", label="past")
            panel.plot(steps[shown:], truth[row, :, variate], color="black", label="truth")
            panel.plot(steps[shown:], ours[row, :, variate], color="tab:orange", label="forecast")
    axes[0][0].legend(fontsize=7)
    return figure


def imputations(y: Tensor, hidden: Tensor, filled: Tensor, data: Any, picked: Tensor) -> "Figure":
    """The same grid: the truth, the values of it that were hidden, and what the model filled in, original units."""
    figure, axes, columns = grid(len(picked), data)
    truth, ours = original(y, data).numpy(), original(filled, data).numpy()
    for row in range(len(picked)):
        dates = data.window_dates("test", int(picked[row]))
        steps = np.arange(y.shape[1]) if dates is None else dates[data.lookback :]
        for column, variate in enumerate(columns):
            panel, holes = axes[row][column], hidden[row, :, variate].numpy()
            panel.plot(steps, truth[row, :, variate], color="0.7", linewidth=1, label="truth")
            panel.plot(steps[holes], truth[row, holes, variate], "o", color="black", mfc="none", ms=4, label="hidden")
            panel.plot(steps[holes], ours[row, holes, variate], "x", color="tab:orange", ms=4, label="filled")
    axes[0][0].legend(fontsize=7)
    return figure


def grid(rows: int, data: Any) -> tuple["Figure", Any, list[int]]:
    """A figure with one panel per window and variate, its axes, and which variates they show."""
    import matplotlib.pyplot as plt

    columns = torch.linspace(0, len(data.columns) - 1, min(VARIATES, len(data.columns))).long().tolist()
    size = (4.2 * len(columns), 2.3 * rows)
    figure, axes = plt.subplots(rows, len(columns), figsize=size, squeeze=False, layout="constrained")
    for column, variate in enumerate(columns):
        axes[0][column].set_title(data.columns[variate], fontsize=9)
    for panel in axes.flat:
        panel.tick_params(axis="x", labelrotation=20, labelsize=7)
        panel.grid(alpha=0.3)
    return figure, axes, columns


def table(task: "Forecast") -> tuple[list[str], list[list[Any]]]:
    """The last test window in original units: one row per step, truth and forecast of every variate.

    Of an imputation one row per hidden value.
    """
    data = task.trainer.datamodule
    last = len(data.test) - 1
    batch, answer = answered(task, torch.tensor([last]))
    truth, ours = original(batch["y"][0], data), original(answer[0], data)
    dates = data.window_dates("test", last)
    steps = list(range(1, len(truth) + 1)) if dates is None else [str(d) for d in dates[-len(truth) :]]
    if task.imputation is not None:
        holes = batch["hidden"][0].nonzero().tolist()
        rows = [[steps[h], data.columns[n], float(truth[h, n]), float(ours[h, n])] for h, n in holes]
        return ["step", "variate", "truth", "filled"], rows
    columns = ["step", *(f"{name} {kind}" for name in data.columns for kind in ("truth", "forecast"))]
    pairs = torch.stack([truth, ours], -1).flatten(1).tolist()
    return columns, [[step, *values] for step, values in zip(steps, pairs, strict=True)]

"""Forecasts of the steps that follow a user's CSV, in original units."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from tasks.ts_forecast import readers
from tasks.ts_forecast.marks import following, time_features

if TYPE_CHECKING:
    from tasks.ts_forecast.task import Forecast


def predict_file(task: "Forecast", data: dict[str, Any], source: Path, target: Path) -> str:
    """Forecasts the H steps after the last row of `source` and writes them to `target`.

    `source` is a CSV with a header, the columns that the model was trained on (others are ignored), a date column
    where the model takes time features, and at least L rows, oldest first. `target` gets the same columns, the next H
    dates, and values in the units of the input. The scale is that of the training data.

    Raises:
        ValueError: a column or the dates are missing, the series is shorter than L, or a value is no number.
    """
    columns, lookback, horizon = task.scale["columns"], data["lookback"], data["horizon"]
    date_column = "auto" if data["marks"] else data["date_column"] and "auto"
    series = readers.read_csv(source, columns, date_column, data["frequency"], data["missing"])
    if len(series.values) < lookback:
        raise ValueError(f"{source}: {len(series.values)} rows, the model looks back {lookback}: give at least as many")
    if data["marks"] and series.dates is None:
        raise ValueError(f"{source}: no date column, but the model was trained with time features of its dates")
    mean, std = (task.scale[key].double() for key in ("mean", "std"))
    x = (torch.from_numpy(np.ascontiguousarray(series.values[-lookback:], dtype=np.float64)) - mean) / std
    batch = {"x": x.float()[None]}
    future = None if series.dates is None else following(series.dates, horizon, data["frequency"])
    if data["marks"]:
        past = time_features(series.dates[-lookback:])
        batch |= {"marks": torch.from_numpy(past)[None], "future_marks": torch.from_numpy(time_features(future))[None]}
    with torch.inference_mode():
        forecast = task(batch)[0].double() * std + mean
    table = pd.DataFrame(forecast.numpy(), columns=columns)
    table.insert(0, *(("step", range(1, horizon + 1)) if future is None else ("date", future)))
    table.to_csv(target, index=False)
    last = f"row {len(series.values)}" if future is None else series.dates[-1]
    return f"{horizon} steps of {len(columns)} variates after {last}: {target}"

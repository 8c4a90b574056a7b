"""A trained model on a user's CSV, in original units: the steps that follow it, or its holes filled."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks.ts_forecast import readers
from tasks.ts_forecast.marks import following, time_features
from tasks.ts_forecast.series import Series

if TYPE_CHECKING:
    from tasks.ts_forecast.task import Forecast

log = logging.getLogger(__name__)


def forecast_file(task: "Forecast", data: dict[str, Any], source: Path, target: Path) -> str:
    """Forecasts the H steps after the last row of `source` and writes them to `target`.

    `source` is a CSV with a header, the columns that the model was trained on (others are ignored), a date column
    where the model takes time features, and at least L rows, oldest first. `target` gets the same columns, the next H
    dates, and values in the units of the input. The scale is that of the training data.

    Raises:
        ValueError: a column or the dates are missing, the series is shorter than L, or a value is no number.
    """
    columns, lookback, horizon = task.scale["columns"], data["lookback"], data["horizon"]
    series = read(task, data, source, data["missing"])
    mean, std = (task.scale[key].double() for key in ("mean", "std"))
    x = (torch.from_numpy(np.ascontiguousarray(series.values[-lookback:], dtype=np.float64)) - mean) / std
    batch = {"x": x.float()[None]}
    future = None if series.dates is None else following(series.dates, horizon, data["frequency"])
    if data["marks"]:
        past = time_features(series.dates[-lookback:])
        batch |= {"marks": torch.from_numpy(past)[None], "future_marks": torch.from_numpy(time_features(future))[None]}
    with torch.inference_mode():
        forecast = task(batch)[0].double() * std + mean
    write(target, columns, forecast.numpy(), future)
    last = f"row {len(series.values)}" if future is None else series.dates[-1]
    return f"{horizon} steps of {len(columns)} variates after {last}: {target}"


def fill_file(task: "Forecast", data: dict[str, Any], source: Path, target: Path) -> str:
    """Fills the empty fields of `source` and writes all its rows to `target`, the other values as they were.

    Reads what `forecast_file` reads; with `data.frequency` absent rows are holes too. The series is cut into windows
    of L rows, the last one up to the last row; a hole is filled by the last window that holds it.

    Raises:
        ValueError: as `forecast_file`.
    """
    columns, lookback = task.scale["columns"], data["lookback"]
    series = read(task, data, source, "keep")
    holes = torch.from_numpy(np.isnan(series.values))
    mean, std = (task.scale[key].double() for key in ("mean", "std"))
    scaled = ((torch.from_numpy(series.values) - mean) / std).nan_to_num().float()
    marks = torch.from_numpy(time_features(series.dates)) if data["marks"] else None
    filled = torch.from_numpy(series.values.copy())
    last = len(scaled) - lookback
    for start in [*range(0, last, lookback), last]:
        rows = slice(start, start + lookback)
        if holes[rows].any():
            answer = rebuilt(task, scaled[rows], None if marks is None else marks[rows]) * std + mean
            filled[rows] = torch.where(holes[rows], answer, filled[rows])
            warn_unseen(holes[rows], columns, series, start)
    write(target, columns, filled.numpy(), series.dates)
    return f"{int(holes.sum())} of {holes.numel()} values filled in: {target}"


def read(task: "Forecast", data: dict[str, Any], source: Path, missing: str) -> Series:
    """The columns of `source` that the model knows; ValueError where they, the dates or enough rows are missing."""
    date_column = "auto" if data["marks"] else data["date_column"] and "auto"
    series = readers.read_csv(source, task.scale["columns"], date_column, data["frequency"], missing)
    if len(series.values) < data["lookback"]:
        raise ValueError(
            f"{source}: {len(series.values)} rows, the model looks back {data['lookback']}: give at least as many"
        )
    if data["marks"] and series.dates is None:
        raise ValueError(f"{source}: no date column, but the model was trained with time features of its dates")
    return series


def rebuilt(task: "Forecast", x_LN: Tensor, marks_LT: Tensor | None) -> Tensor:
    """(L, N) float64: what the model makes of one window of scaled values, 0 where they are missing."""
    batch = {"x": x_LN[None]}
    if marks_LT is not None:
        batch |= {"marks": marks_LT[None], "future_marks": marks_LT[None]}
    with torch.inference_mode():
        return task(batch)[0].double()


def warn_unseen(holes_LN: Tensor, columns: list[str], series: Series, start: int) -> None:
    """Says which columns have no value at all in a window: the model then goes by the others alone."""
    empty = [columns[n] for n in holes_LN.all(0).nonzero().flatten().tolist()]
    if empty:
        first, last = series.place(start), series.place(start + len(holes_LN) - 1)
        log.warning("%s: no value from %s to %s in column %s", series.file, first, last, ", ".join(map(repr, empty)))


def write(target: Path, columns: list[str], values: np.ndarray, dates: pd.DatetimeIndex | None) -> None:
    """A CSV with a date per row, or its number."""
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, *(("step", range(1, len(table) + 1)) if dates is None else ("date", dates)))
    table.to_csv(target, index=False)

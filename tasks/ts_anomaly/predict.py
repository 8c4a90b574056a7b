"""Scores of the rows of a user's CSV.

Shapes: R rows, N variates, L look-back, H horizon.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks.ts_anomaly.scores import threshold_at
from tasks.ts_anomaly.windows import SegmentWindows, span, tiles
from tasks.ts_forecast import readers

if TYPE_CHECKING:
    from tasks.ts_anomaly.task import AnomalyDetection


def predict_file(task: "AnomalyDetection", data: dict[str, Any], source: Path, target: Path) -> str:
    """Scores every row of `source` and writes them to `target`.

    `source` is a CSV with a header, the columns that the model was trained on (others are ignored) and at least a
    window of rows, oldest first. `target` gets a row for each of them: the date or the step, `score`, `flag` (1 above
    the threshold, which is that of the training data) and, per variate, its share of the score. Under forecast scoring
    the first L rows have no score, since nothing is known before them.

    Raises:
        ValueError: a column is missing, the series is shorter than a window, a value is no number; the model was
            trained on several series with a scale each.
    """
    known = task.detector
    if len(set(map(tuple, known["mean"].tolist()))) > 1:
        raise ValueError(
            f"the model was trained on {len(known['series'])} series, each with its own scale: train on one "
            "(data.series=<name>) to score another file"
        )
    columns, lookback, horizon = known["columns"], data["lookback"], data["horizon"]
    length = span(task.scoring, lookback, horizon)
    series = readers.read_csv(source, columns, data["date_column"] and "auto", data["frequency"], data["missing"])
    if len(series.values) < length:
        raise ValueError(f"{source}: {len(series.values)} rows, a window needs {length}: give at least as many")
    mean, std = (known[key][0].double() for key in ("mean", "std"))
    scaled = ((torch.from_numpy(np.ascontiguousarray(series.values)) - mean) / std).float()
    starts, covered = tiles(0, len(scaled), length, horizon)
    windows = SegmentWindows(scaled, starts, lookback, horizon, length, covered)
    score, shares = score_rows(task, windows, len(scaled), data["batch_size"])
    first = ("step", range(1, len(scaled) + 1)) if series.dates is None else ("date", series.dates)
    table = pd.DataFrame({first[0]: first[1], "score": score.numpy()})
    counted = "no validation was ever run, so there is no threshold and no flag"
    if known["scores"] is not None and len(known["scores"]):
        threshold = threshold_at(task.ratio, known["scores"])
        table["flag"] = (table["score"] > threshold).astype(int)
        counted = f"{table['flag'].sum()} above the threshold {threshold:.4g}"
    for i, name in enumerate(columns):
        table[f"{name} share"] = shares[:, i].numpy()
    table.to_csv(target, index=False, float_format="%.6g")
    blank = f", the first {length - horizon} without a score (no history)" if length > horizon else ""
    return f"{len(table)} rows scored{blank}, {counted}: {target}"


def score_rows(task: "AnomalyDetection", windows: SegmentWindows, rows: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """(R,) mean squared error of each row and (R, N) each variate's share of it; NaN where no window reaches."""
    squared = torch.full((rows, windows.variates), torch.nan, dtype=torch.float64)
    steps = torch.arange(windows.horizon)
    with torch.inference_mode():
        for chunk in torch.arange(len(windows)).split(batch_size):
            batch = windows[chunk]
            fresh = steps >= batch["covered"][:, None]
            squared[(batch["rows"][:, None] + steps)[fresh]] = task.squared_errors(batch)[fresh].double()
    return squared.mean(1), squared / squared.sum(1, keepdim=True).clamp_min(1e-12)

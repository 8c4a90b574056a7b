"""What a detector is trained on and judged by, in memory: segments that no window may cross.

Shapes: R rows (steps), N variates, G segments (channels, machines, files).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.ts_forecast.series import Series, nearest


@dataclass(frozen=True)
class Segment:
    """One channel, machine or file: train (R1, N) and test (R2, N) float64 in original units.

    labels: (R2,) bool, True where a step is anomalous, or None. dates: those of the test rows, or None. follows: the
    test rows come right after the train rows, which are then their history. anomalies_trained_on: how many train rows
    are known to be anomalous.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray | None
    dates: pd.DatetimeIndex | None = None
    follows: bool = False
    anomalies_trained_on: int = 0


@dataclass(frozen=True)
class Recording:
    """Segments with the same N columns; file: for messages."""

    segments: list[Segment]
    columns: list[str]
    file: str


def divide(series: Series, labels: np.ndarray | None, train_share: float, name: str) -> Segment:
    """The first `train_share` of the rows (rounded down) to train on, the others to score."""
    rows = int(train_share * len(series.values))
    return Segment(
        name,
        series.values[:rows],
        series.values[rows:],
        None if labels is None else labels[rows:],
        None if series.dates is None else series.dates[rows:],
        follows=True,
        anomalies_trained_on=0 if labels is None else int(labels[:rows].sum()),
    )


def chosen(names: list[str], wanted: str | list[str] | None, file: str) -> list[str]:
    """The named segments, in the order in which they are named; None is all. An unknown name raises ValueError."""
    if wanted is None:
        return names
    picked = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in picked:
        if name not in names:
            raise ValueError(f"data.series={name}: {file} has no such series; {nearest(name, names)}")
    return picked


def as_labels(values: np.ndarray, rows: int, file: str) -> np.ndarray:
    """(R,) bool of 0/1 numbers. ValueError for anything else, or for another number of rows."""
    if values.shape != (rows,):
        raise ValueError(f"{file}: {values.size} labels for {rows} test rows: give one per row")
    strange = np.flatnonzero((values != 0) & (values != 1))
    if len(strange):
        raise ValueError(
            f"{file}: the label of row {strange[0] + 1} is {values[strange[0]]} ({len(strange)} such rows): "
            "write 1 for an anomalous step and 0 for a normal one"
        )
    return values == 1

"""Data of the forecasting task: a series scaled by its train rows, cut into windows (LTSF-Linear, arXiv 2205.13504).

Notable: rows are split in time order; validation and test inputs may reach `lookback` rows back before their border,
so their first target is the first row of the segment; stride 1 (unless `test_stride`, which makes laptop tests short),
no window is ever dropped; metrics are on the scaled values.
Shapes: B batch, L look-back, H horizon, N variates, T marks (time features), R rows.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from tasks import sources
from tasks.data import TaskData, at_least, choose
from tasks.ts_forecast import readers
from tasks.ts_forecast.marks import MARKS, time_features
from tasks.ts_forecast.series import MISSING_RULES, Series
from tasks.ts_forecast.windows import INPUT_SHUFFLES, Windows

log = logging.getLogger(__name__)

SEGMENTS = ("train", "validation", "test")


def split_rows(rows: int, split: Sequence[float]) -> list[int]:
    """Rows of train, validation and test: `split` itself if it counts rows (later rows stay unused), else by the
    papers' rounding: int(share * rows) for train and test, the rest for validation. Raises ValueError."""
    check_split(split)
    if all(isinstance(s, int) for s in split):
        if sum(split) > rows:
            raise ValueError(
                f"data.split={list(split)} needs {sum(split)} rows, the series has {rows}: use smaller counts, "
                f"or shares such as [0.7, 0.1, 0.2]"
            )
        return list(split)
    train, test = int(split[0] * rows), int(split[2] * rows)
    return [train, rows - train - test, test]


def check_split(split: Sequence[float]) -> None:
    """ValueError unless `split` is three positive row counts (integers) or three positive shares that sum to 1."""
    numbers = all(isinstance(s, int | float) and not isinstance(s, bool) for s in split)
    if len(split) != 3 or not numbers or min(split) <= 0:
        raise ValueError(
            f"data.split={list(split)}: give three positive row counts or shares (train, validation, test)"
        )
    if not all(isinstance(s, int) for s in split) and abs(sum(split) - 1) > 1e-6:
        raise ValueError(
            f"data.split={list(split)} sums to {sum(split):g}: shares must sum to 1 (e.g. [0.7, 0.1, 0.2]), "
            f"row counts must be integers"
        )


class ForecastData(TaskData):
    """A DataModule of windows; see conf/data/_series.yaml for every argument.

    After `setup`: train, val, test (Windows); mean, std (N,) float64 of the train rows (population std; 1 for a
    constant column); columns (N names); dates (R,) or None; naive_scale (N,) float64 = mean |x_t - x_(t-season)| over
    the train rows in original units, the denominator of MASE (lag 1 if there are no more than `season` train rows; 1
    where it would be 0). Raises ValueError / FileNotFoundError with one clear line: at construction for wrong
    arguments, in setup for wrong data.
    """

    def __init__(
        self,
        name: str,
        source: Mapping,
        lookback: int,
        horizon: int,
        variates: int | None,
        marks: int | None = MARKS,
        season: int = 24,
        batch_size: int = 32,
        split: Sequence[float] = (0.7, 0.1, 0.2),
        overlap: bool = True,
        root: str | None = None,
        path: str | None = None,
        download: bool = True,
        columns: Sequence[str] | None = None,
        date_column: str | None = "auto",
        frequency: str | None = None,
        missing: str = "error",
        input_shuffle: str = "none",
        input_noise: float = 0.0,
        test_stride: int = 1,
        drop_last_test: bool = False,
        seed: int = 0,
    ):
        super().__init__(batch_size, seed, drop_last_test)
        counts = {"lookback": lookback, "horizon": horizon, "season": season, "test_stride": test_stride}
        for key, value in counts.items():
            at_least(f"data.{key}", value, 1)
        choose("data.missing", missing, MISSING_RULES)
        choose("data.input_shuffle", input_shuffle, INPUT_SHUFFLES)
        _check_noise(input_noise)
        choose("data.marks", marks, (0, MARKS, None))
        check_split(split)
        _check_frequency(frequency)
        if variates is not None:
            at_least("data.variates", variates, 1)
        self.name, self.lookback, self.horizon, self.season = name, lookback, horizon, season
        self.variates, self.marks, self.split, self.overlap = variates, marks, list(split), overlap
        self.input_shuffle, self.input_noise, self.test_stride = input_shuffle, input_noise, test_stride
        self._reading = {
            "name": name,
            "source": source,
            "root": root,
            "path": path,
            "download": download,
            "frequency": frequency,
            "columns": None if columns is None else list(columns),
            "date_column": date_column,
            "missing": missing,
        }
        self._ready = False

    @staticmethod
    def complete(config: dict) -> dict:
        """Counts the user's own columns where the config does not state them; see `readers.complete`."""
        return readers.complete(config)

    def prepare_data(self) -> None:
        """Finds the file, or downloads it into the cache folder (in one process only)."""
        sources.locate(self._reading)

    def setup(self, stage: str | None = None) -> None:
        """Loads, checks, scales and splits; once, whatever the stage."""
        if self._ready:
            return
        series = readers.load(self._reading)
        self._check_statement(series)
        starts, stops = self._borders(series)
        train = series.values[: stops[0]]
        self._scale_from(train, series)
        scaled = torch.from_numpy(((series.values - self.mean.numpy()) / self.std.numpy()).astype(np.float32))
        marks = torch.from_numpy(time_features(series.dates)) if self.marks else None
        self.columns, self.dates = series.columns, series.dates
        shape = {"lookback": self.lookback, "horizon": self.horizon}
        self.train = Windows(scaled, marks, starts[0], stops[0], **shape)
        self.val = Windows(scaled, marks, starts[1], stops[1], **shape)
        inputs = {"input_shuffle": self.input_shuffle, "input_noise": self.input_noise, "seed": self.seed}
        self.test = Windows(scaled, marks, starts[2], stops[2], **shape, stride=self.test_stride, **inputs)
        self._ready = True

    def window_dates(self, split: str, i: int) -> pd.DatetimeIndex | None:
        """The dates of the L + H steps of window i of `split` (train, val or test); None if the series has no dates."""
        choose("split", split, ("train", "val", "test"))
        windows: Windows = getattr(self, split)
        if not 0 <= i < len(windows):
            raise IndexError(f"window {i} of {split}: there are {len(windows)}")
        first = windows.start + i * windows.stride
        return None if self.dates is None else self.dates[first : first + self.lookback + self.horizon]

    def _check_statement(self, series: Series) -> None:
        found = len(series.columns)
        if self.variates is None:
            self.variates = found
        if self.variates != found:
            some = ", ".join(series.columns[:8]) + (", ..." if found > 8 else "")
            raise ValueError(
                f"data.variates={self.variates}, but {series.file} gives {found} columns ({some}): "
                f"set data.variates={found} or choose columns with data.columns"
            )
        if self.marks is None:
            self.marks = 0 if series.dates is None else MARKS
        if self.marks and series.dates is None:
            raise ValueError(
                f"data.marks={self.marks}, but {series.file} has no dates: set data.marks=0 or data.date_column"
            )

    def _borders(self, series: Series) -> tuple[list[int], list[int]]:
        """First and last row (exclusive) that each segment's windows read; a segment too short raises ValueError."""
        counts = split_rows(len(series.values), self.split)
        stops = [int(s) for s in np.cumsum(counts)]
        reach = self.lookback if self.overlap else 0
        starts = [0, stops[0] - reach, stops[1] - reach]
        for segment, count, need in zip(SEGMENTS, counts, [self.lookback, *[self.lookback - reach] * 2], strict=True):
            if count < need + self.horizon:
                raise ValueError(
                    f"{series.file}: the {segment} segment has {count} rows; data.lookback={self.lookback} and "
                    f"data.horizon={self.horizon} need at least {need + self.horizon}: shorten them or change "
                    f"data.split={self.split}"
                )
        return starts, stops

    def _scale_from(self, train: np.ndarray, series: Series) -> None:
        mean, std = train.mean(0), train.std(0)
        constant = std == 0
        if constant.any():
            names = ", ".join(repr(series.columns[i]) for i in np.flatnonzero(constant)[:8])
            log.warning("%s: constant over the train rows, scaled by 1: %s", series.file, names)
        lag = self.season if len(train) > self.season else 1
        naive = np.abs(train[lag:] - train[:-lag]).mean(0)
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(np.where(constant, 1.0, std))
        self.naive_scale = torch.from_numpy(np.where(naive == 0, 1.0, naive))


def _check_noise(noise: float) -> None:
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ValueError(
            f"data.input_noise={noise!r}: give a standard deviation in units of the scaled values, 0.1 for one, or 0"
        )


def _check_frequency(frequency: str | None) -> None:
    if frequency is None:
        return
    try:
        pd.tseries.frequencies.to_offset(frequency)
    except ValueError:
        raise ValueError(f"data.frequency={frequency!r} is not a pandas offset: e.g. h, 15min, D, W-TUE, MS") from None

"""Data of the anomaly task: segments scaled by their train rows, cut into windows that stay within a segment.

Notable: training slides by one; what is scored is covered by windows side by side, the last one right-aligned, so that
every step gets one score; the last rows of each segment's train part are held out for validation; labels are used for
test metrics only.
Shapes: B batch, L look-back, H horizon, N variates, R rows, G segments.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks import sources
from tasks.data import BatchLoader, TaskData, at_least, choose
from tasks.ts_anomaly import readers
from tasks.ts_anomaly.recording import Recording, Segment
from tasks.ts_anomaly.windows import SCORINGS, SegmentWindows, every, span, tiles
from tasks.ts_forecast.series import MISSING_RULES

log = logging.getLogger(__name__)

SCALES = ("together", "each")


class AnomalyData(TaskData):
    """A DataModule of windows; see conf/data/_anomaly.yaml for every argument.

    After `setup`: train (windows one step apart), val, fitted and test (windows side by side over the held-out, the
    trained-on and the test rows), as SegmentWindows; train_values and test_values (R, N) float32 scaled, all segments
    one below the other; fit_rows, val_rows, test_rows (int64): which of those rows belong to which part (test_values
    also has the history that forecasts of the first test rows need, where the test follows the training); borders: the
    first test row of each segment, in test order; labels (test rows,) bool or None; mean, std (G, N) float64;
    segments, columns. Raises ValueError / FileNotFoundError with one clear line.
    """

    val: SegmentWindows
    test: SegmentWindows

    def __init__(
        self,
        name: str,
        source: Mapping,
        lookback: int,
        horizon: int,
        variates: int | None,
        scoring: str = "reconstruction",
        marks: int = 0,
        batch_size: int = 32,
        stride: int = 1,
        validation: float = 0.2,
        scale: str = "together",
        series: str | Sequence[str] | None = None,
        train_share: float | None = None,
        root: str | None = None,
        path: str | None = None,
        train_path: str | None = None,
        download: bool = True,
        columns: Sequence[str] | None = None,
        date_column: str | None = "auto",
        label_column: str | None = "auto",
        frequency: str | None = None,
        missing: str = "error",
        seed: int = 0,
    ):
        super().__init__(batch_size, seed)
        for key, value in {"lookback": lookback, "horizon": horizon, "stride": stride}.items():
            at_least(f"data.{key}", value, 1)
        choose("task.scoring", scoring, SCORINGS)
        choose("data.scale", scale, SCALES)
        choose("data.missing", missing, MISSING_RULES)
        choose("data.marks", marks, (0,))
        _check_share("data.validation", validation, 0.5)
        if train_share is not None:
            _check_share("data.train_share", train_share, 0.95)
        if scoring == "reconstruction" and horizon != lookback:
            raise ValueError(
                f"data.horizon={horizon}: with task.scoring=reconstruction the window is its own target, so it must be "
                f"data.lookback={lookback}; leave it out, or set task.scoring=forecast"
            )
        self.name, self.lookback, self.horizon, self.variates = name, lookback, horizon, variates
        self.scoring, self.stride, self.validation, self.scale = scoring, stride, validation, scale
        self.length = span(scoring, lookback, horizon)
        self._reading = {
            "name": name,
            "source": source,
            "root": root,
            "path": path,
            "train_path": train_path,
            "download": download,
            "series": series,
            "train_share": train_share,
            "columns": columns,
            "date_column": date_column,
            "label_column": label_column,
            "frequency": frequency,
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
        """Loads, checks, scales and divides; once, whatever the stage."""
        if self._ready:
            return
        recording = readers.load(self._reading)
        self._check_statement(recording)
        self.columns, self.segments, self.file = recording.columns, recording.segments, recording.file
        self._scale_from(recording)
        self._cut_train()
        self._cut_test()
        learnt = sum(s.anomalies_trained_on for s in self.segments)
        if learnt:
            known = "%s: %d of the %d train rows are labelled as anomalies; they are learnt as if they were normal"
            log.warning(known, self.file, learnt, len(self.train_values))
        labelled = [s.labels for s in self.segments if s.labels is not None]
        self.labels = torch.from_numpy(np.concatenate(labelled)) if len(labelled) == len(self.segments) else None
        self._ready = True

    def val_dataloader(self) -> list[BatchLoader]:
        """The held-out windows, then those over the rows that were trained on: the threshold is taken from both."""
        return [self._loader(self.val), self._loader(self.fitted)]

    def test_dataloader(self) -> list[BatchLoader]:
        """The test windows, then those of `val_dataloader`."""
        return [self._loader(self.test), *self.val_dataloader()]

    def segment_of(self, step: int) -> tuple[Segment, int]:
        """The segment of a test step (counted over all segments), and the step's place in it."""
        g = int(np.searchsorted(self.borders, step, side="right")) - 1
        return self.segments[g], step - self.borders[g]

    def date(self, step: int) -> pd.Timestamp | None:
        """The date of a test step, where the data has dates."""
        segment, place = self.segment_of(step)
        return None if segment.dates is None else segment.dates[place]

    def original(self, values: Tensor, step: int) -> Tensor:
        """Scaled values (..., N) of the segment of a test step, in original units."""
        g = int(np.searchsorted(self.borders, step, side="right")) - 1
        return values.double() * self.std[g] + self.mean[g]

    def _check_statement(self, recording: Recording) -> None:
        found = len(recording.columns)
        if self.variates is None:
            self.variates = found
        if self.variates != found:
            some = ", ".join(recording.columns[:8]) + (", ..." if found > 8 else "")
            raise ValueError(
                f"data.variates={self.variates}, but {recording.file} gives {found} columns ({some}): "
                f"set data.variates={found} or choose columns with data.columns"
            )
        for segment in recording.segments:
            least = {"train": self.length, "test": self.horizon if segment.follows else self.length}
            for part, length in least.items():
                rows = len(getattr(segment, part))
                if rows < length:
                    raise ValueError(
                        f"{recording.file}: the {part} part of {segment.name} has {rows} rows, a window needs {length} "
                        f"(data.lookback={self.lookback}): shorten it, or leave the series out (data.series)"
                    )

    def _scale_from(self, recording: Recording) -> None:
        """Mean and deviation of the train rows, the validation part included as in the published tables."""
        trains = [s.train for s in recording.segments]
        pooled = [np.concatenate(trains)] * len(trains) if self.scale == "together" else trains
        mean, std = (np.stack([f(p, axis=0) for p in pooled]) for f in (np.mean, np.std))
        constant = std == 0
        if constant.any():
            names = [recording.columns[i] for i in np.flatnonzero(constant.any(0))]
            shown = ", ".join(repr(n) for n in names[:8]) + (", ..." if len(names) > 8 else "")
            log.warning("%s: constant over the train rows, scaled by 1: %s", recording.file, shown)
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(np.where(constant, 1.0, std))

    def _scaled(self, rows: np.ndarray, g: int) -> Tensor:
        return torch.from_numpy(((rows - self.mean[g].numpy()) / self.std[g].numpy()).astype(np.float32))

    def _cut_train(self) -> None:
        """Each segment's last rows are held out: `validation` of them, at least one window; all rows of a segment too
        short for both are trained on."""
        self.train_values = torch.cat([self._scaled(s.train, g) for g, s in enumerate(self.segments)])
        reach = self.length - self.horizon  # rows before its first target that a window reads
        parts: dict[str, list[Tensor]] = {k: [] for k in ("train", "fit", "fit_covered", "val", "val_covered")}
        fit_rows, val_rows, start, whole = [], [], 0, 0
        for segment in self.segments:
            stop = start + len(segment.train)
            border = stop - max(self.horizon, int(self.validation * len(segment.train)))
            if border - start < self.length:
                border, whole = stop, whole + 1
            parts["train"].append(every(start, border, self.length, self.stride))
            for name, first, last in (("fit", start, border), ("val", border - reach, stop)):
                starts, covered = tiles(first, last, self.length, self.horizon)
                parts[name].append(starts)
                parts[f"{name}_covered"].append(covered)
            fit_rows.append(torch.arange(start + reach, border))
            val_rows.append(torch.arange(border, stop))
            start = stop
        joined = {name: torch.cat(starts) for name, starts in parts.items()}
        self.fit_rows, self.val_rows = torch.cat(fit_rows), torch.cat(val_rows)
        if not len(joined["val"]):
            raise ValueError(
                f"{self.file}: no series is long enough for a window of {self.length} rows to train on and one to "
                f"validate on: shorten data.lookback={self.lookback}"
            )
        if whole:
            short = "%s: %d of %d series are too short to hold out a part: all of their rows are trained on"
            log.info(short, self.file, whole, len(self.segments))
        self.train = self._windows(self.train_values, joined["train"])
        self.fitted = self._windows(self.train_values, joined["fit"], joined["fit_covered"])
        self.val = self._windows(self.train_values, joined["val"], joined["val_covered"])

    def _cut_test(self) -> None:
        """Where the test follows the training, forecasts of its first rows look back at the last train rows."""
        reach = self.length - self.horizon
        values, starts, covered, rows, unscored, at = [], [], [], [], [], 0
        for g, segment in enumerate(self.segments):
            history = reach if segment.follows else 0
            block = np.concatenate([segment.train[len(segment.train) - history :], segment.test])
            values.append(self._scaled(block, g))
            first, done = tiles(at, at + len(block), self.length, self.horizon)
            starts.append(first)
            covered.append(done)
            rows.append(torch.arange(at + history, at + len(block)))
            unscored.append(torch.arange(at + history, at + reach))
            at += len(block)
        self.test_values, self.test_rows = torch.cat(values), torch.cat(rows)
        self.without_history = torch.cat(unscored)
        self.borders = np.cumsum([0, *(len(s.test) for s in self.segments[:-1])])
        self.test = self._windows(self.test_values, torch.cat(starts), torch.cat(covered))

    def _windows(self, values: Tensor, starts: Tensor, covered: Tensor | None = None) -> SegmentWindows:
        return SegmentWindows(values, starts, self.lookback, self.horizon, self.length, covered)


def _check_share(key: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"{key}={value!r}: give a share in (0, {most}]")

"""A multivariate series in memory, and what is done to it before it is cut into windows.

Shapes: R rows (steps), N variates (columns). Values are float64 in original units; missing ones are NaN until `fill`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd

log = logging.getLogger(__name__)

MISSING_RULES = ("error", "ffill", "interpolate", "drop", "zero")
SENTINEL = -9999.0


def _row_number(row: int) -> str:
    return f"row {row + 1}"


@dataclass(frozen=True)
class Series:
    """values (R, N) float64; columns: N names; dates: R time stamps or None; file: for messages; at: row -> place."""

    values: np.ndarray
    columns: list[str]
    dates: pd.DatetimeIndex | None
    file: str
    at: Callable[[int], str] = _row_number

    def place(self, row: int) -> str:
        """Where a row stands, for a message: 'line 12 (2020-01-01 03:00:00)'."""
        return self.at(row) if self.dates is None else f"{self.at(row)} ({self.dates[row]})"


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an unknown-name error: the closest names, else all (at most ten)."""
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"there are {', '.join(names[:10])}"


def select(series: Series, columns: Sequence[str] | None) -> Series:
    """The named columns, in the order they are named; None keeps all. An unknown name raises ValueError."""
    if columns is None:
        return series
    names = [str(c) for c in columns]
    for name in names:
        if name not in series.columns:
            raise ValueError(f"{series.file}: no column {name!r} (data.columns); {nearest(name, series.columns)}")
    return replace(series, values=series.values[:, [series.columns.index(n) for n in names]], columns=names)


def check_dates(series: Series) -> Series:
    """Dates must be strictly increasing; ValueError names the first duplicate or the first one out of order."""
    dates = series.dates
    if dates is None or (dates.is_monotonic_increasing and dates.is_unique):
        return series
    duplicated = np.flatnonzero(dates.duplicated())
    if len(duplicated):
        row = int(duplicated[0])
        first = int(np.flatnonzero(dates == dates[row])[0])
        raise ValueError(
            f"{series.file}: date {dates[row]} at {series.at(row)} stands already at {series.at(first)} "
            f"({len(duplicated)} duplicates): keep one row per date"
        )
    row = int(np.flatnonzero(np.diff(dates.asi8) < 0)[0]) + 1
    raise ValueError(
        f"{series.file}: dates are not in order: {dates[row]} at {series.at(row)} comes after "
        f"{dates[row - 1]}: sort the file by date"
    )


def regular(series: Series, frequency: str | None) -> Series:
    """Put the rows on the grid of `frequency` (a pandas offset alias); time steps without a row become NaN rows."""
    if frequency is None:
        return series
    if series.dates is None:
        raise ValueError(f"{series.file}: data.frequency={frequency} needs dates, and the file has no date column")
    grid = pd.date_range(series.dates[0], series.dates[-1], freq=frequency)
    off = np.flatnonzero(~series.dates.isin(grid))
    if len(off):
        raise ValueError(
            f"{series.file}: {series.place(int(off[0]))} is not on the {frequency} grid that starts at "
            f"{series.dates[0]} ({len(off)} such rows): set data.frequency=null or the true step"
        )
    if len(grid) == len(series.dates):
        return series
    values = np.full((len(grid), series.values.shape[1]), np.nan)
    values[grid.get_indexer(series.dates)] = series.values
    return replace(series, values=values, dates=grid, at=_row_number)


def fill(series: Series, rule: str) -> Series:
    """Apply the missing-value rule: error | ffill (then backward at the start) | interpolate (linear in rows, ends
    held) | drop (whole rows; windows then span the hole) | zero. A column without any value raises ValueError."""
    if rule not in MISSING_RULES:
        raise ValueError(f"data.missing={rule!r}: choose one of {', '.join(MISSING_RULES)}")
    holes = np.isnan(series.values)
    counts = holes.sum(0)
    for column in np.flatnonzero(counts == len(holes)):
        raise ValueError(
            f"{series.file}: column {series.columns[column]!r} has no value at all: leave it out (data.columns)"
        )
    if not counts.any():
        return series
    if rule == "error":
        column = int(np.flatnonzero(counts)[0])
        row = int(np.flatnonzero(holes[:, column])[0])
        others = f", and {(counts > 0).sum() - 1} more columns have some" if (counts > 0).sum() > 1 else ""
        raise ValueError(
            f"{series.file}: column {series.columns[column]!r} has {counts[column]} missing values, the first "
            f"at {series.place(row)}{others}: set data.missing to ffill, interpolate, drop or zero"
        )
    if rule == "drop":
        keep = ~holes.any(1)
        log.warning("%s: dropped %d of %d rows with missing values", series.file, (~keep).sum(), len(keep))
        dates = None if series.dates is None else series.dates[keep]
        return replace(series, values=series.values[keep], dates=dates, at=_row_number)
    frame = pd.DataFrame(series.values)
    filled = {
        "ffill": lambda: frame.ffill().bfill(),
        "interpolate": lambda: frame.interpolate(limit_direction="both"),
        "zero": lambda: frame.fillna(0.0),
    }[rule]()
    return replace(series, values=filled.to_numpy(dtype=np.float64))


def warn_sentinels(series: Series) -> Series:
    """-9999 is how many loggers write 'no value': warn with column and count, change nothing."""
    counts = (series.values == SENTINEL).sum(0)
    found = [f"{series.columns[i]!r} ({counts[i]})" for i in np.flatnonzero(counts)]
    if found:
        log.warning(
            "%s: the value -9999 (often 'missing') is kept as a number in column %s", series.file, ", ".join(found)
        )
    return series

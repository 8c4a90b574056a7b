"""Reads labelled series from CSV (plain or gzip; comma, semicolon or tab), in two layouts.

wide: one case a row, one variate; every column but label (and case) is a time step, in the file's order; empty cells at
the end of a row: the case ends before.

    label,t0,t1,t2
    up,0.1,0.4,0.9

long: one step of one case a row; the columns case, label and (optionally) time, and one for each variate. A case's rows
stand in the order of its time.

    case,time,label,x,y
    a,0,up,0.1,2.0
    a,1,up,0.4,2.1
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.data import choose
from tasks.ts_classification.cases import Cases, checked
from tasks.ts_forecast import table
from tasks.ts_forecast.series import nearest

LAYOUTS = ("auto", "wide", "long")
REMEDY = "correct it, or leave it empty after a case's end"


@dataclass(frozen=True)
class Columns:
    """What the columns that are no series are called."""

    label: str = "label"
    case: str = "case"
    time: str = "time"


USUAL = Columns()


def read(path: Path, layout: str = "auto", columns: Columns = USUAL, labelled: bool = True) -> Cases:
    """The cases of a CSV file; `auto`: long where a case stands in more than one row.

    labelled: whether the label column must be there. Raises ValueError: file, column and line of what is wrong.
    """
    choose("data.layout", layout, LAYOUTS)
    frame, at = table.frame(path, (columns.label, columns.case, columns.time))
    if columns.label not in frame and labelled:
        raise ValueError(
            f"{path}: no column {columns.label!r} (data.label_column); {nearest(columns.label, list(frame))}"
        )
    if columns.case not in frame and layout == "long":
        raise ValueError(f"{path}: no column {columns.case!r} (data.case_column); {nearest(columns.case, list(frame))}")
    for name in (columns.label, columns.case):
        if name in frame and frame[name].isna().any():
            row = int(np.flatnonzero(frame[name].isna())[0])
            raise ValueError(f"{path}: column {name!r}, {at(row)}: it is empty ({frame[name].isna().sum()} such rows)")
    if layout == "auto":
        layout = "long" if columns.case in frame and frame[columns.case].duplicated().any() else "wide"
    return (_long if layout == "long" else _wide)(frame, at, path, columns)


def _wide(frame: pd.DataFrame, at: Callable[[int], str], path: Path, columns: Columns) -> Cases:
    steps = [name for name in frame if name not in (columns.label, columns.case)]
    values = _values(frame, steps, path, at)[:, :, None]
    names = frame[columns.case] if columns.case in frame else [at(row) for row in range(len(frame))]
    labels = list(frame[columns.label]) if columns.label in frame else None
    return checked(values, labels, str(path), variates=["value"], names=names)


def _long(frame: pd.DataFrame, at: Callable[[int], str], path: Path, columns: Columns) -> Cases:
    case, names = pd.factorize(frame[columns.case])
    variates = [name for name in frame if name not in (columns.label, columns.case, columns.time)]
    numbers = _values(frame, variates, path, at)
    if columns.time in frame:
        _check_time(frame[columns.time], case, path, at)
    step = frame.groupby(case).cumcount().to_numpy()
    values = np.full((len(names), step.max() + 1, len(variates)), np.nan)
    values[case, step] = numbers
    labels = _one_label_each(frame[columns.label], case, list(names), path, at) if columns.label in frame else None
    return checked(values, labels, str(path), variates=variates, names=names)


def _values(frame: pd.DataFrame, names: list[str], path: Path, at: Callable[[int], str]) -> np.ndarray:
    """(rows, columns) float64."""
    if not names:
        raise ValueError(f"{path}: no column holds a series (columns: {', '.join(map(str, frame))})")
    return np.stack([table.numbers_of(frame[name], path, at, REMEDY) for name in names], axis=1)


def _one_label_each(
    labels: pd.Series, case: np.ndarray, names: list[str], path: Path, at: Callable[[int], str]
) -> list[str]:
    first = labels.groupby(case).first().to_numpy()
    other = np.flatnonzero(labels.to_numpy() != first[case])
    if len(other):
        row = int(other[0])
        raise ValueError(
            f"{path}: {at(row)}: case {names[case[row]]} is labelled {labels.iloc[row]!r} here and"
            f" {first[case[row]]!r} before: a case has one label"
        )
    return list(first)


def _check_time(time: pd.Series, case: np.ndarray, path: Path, at: Callable[[int], str]) -> None:
    """A case's steps must come one after the other: numbers or dates that grow."""
    moments = pd.to_numeric(time, errors="coerce")
    if moments.isna().all():
        moments = pd.to_datetime(time, errors="coerce", utc=True, format="ISO8601")
    if moments.isna().any():
        row = int(np.flatnonzero(moments.isna())[0])
        raise ValueError(f"{path}: column {time.name!r}, {at(row)}: {time.iloc[row]!r} is neither a number nor a date")
    before = moments.groupby(case).shift()
    wrong = np.flatnonzero(before.notna() & ~(moments > before))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"{path}: column {time.name!r}, {at(row)}: {time.iloc[row]} does not come after the step before it"
            " in its case: sort the rows of a case by time"
        )

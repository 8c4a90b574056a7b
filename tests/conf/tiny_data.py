"""Tiny data in the layout of each data set, where the data config looks first."""

from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig


def write(root: Path, data: DictConfig) -> list[str]:
    """Writes what the data config reads; returns the overrides that its size asks for."""
    return WRITERS[data._target_](root, data)


def write_series(root: Path, data: DictConfig) -> list[str]:
    """A random walk of just enough rows."""
    fitting = ["data.split=[0.5,0.25,0.25]"]
    if data.source.format == "nycflights13":
        return fitting
    rows = 4 * (data.lookback + data.horizon)
    values = np.random.default_rng(0).normal(size=(rows, data.variates)).cumsum(0).astype(np.float32)
    path = root / data.source.files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if data.source.format == "pems":
        np.savez(path, data=values[:, :, None])
    elif data.source.format == "solar":
        np.savetxt(path, values, delimiter=",", fmt="%.3f")
    else:
        table = pd.DataFrame(values, columns=[f"v{i}" for i in range(data.variates)])
        table.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
        path.write_text(table.to_csv(index=False, float_format="%.3f"))
    return fitting


def write_cases(root: Path, data: DictConfig) -> list[str]:
    """Three random cases of every class in either split."""
    if data.source.format == "nycflights13":
        return []
    labels = np.repeat(np.arange(data.classes), 3).astype(np.int16)
    shape = (len(labels), data.variates, data.length)
    cases = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    path = root / next(name for name in data.source.files if name.endswith(".npz"))
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.array([str(label) for label in range(data.classes)])
    np.savez(path, X_train=cases[0], X_test=cases[1], y_train=labels, y_test=labels, classes=names)
    return ["data.cases=null"]


def write_recording(root: Path, data: DictConfig) -> list[str]:
    """Two channels of three windows in train and test; a fifth of each test part is anomalous."""
    if data.source.format == "nyc_cancellations":
        return []
    rows = 3 * (data.lookback + data.horizon)
    offsets = np.array([0, rows, 2 * rows])
    values = np.random.default_rng(0).normal(size=(2, 2 * rows, data.variates)).astype(np.float32)
    label = (np.arange(2 * rows) % 5 == 0).astype(np.uint8)
    path = root / data.source.files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = np.array(["A-1", "B-1"])
    parts = {"train": values[0], "test": values[1], "train_offsets": offsets, "test_offsets": offsets}
    np.savez(path, label=label, channels=channels, **parts)
    return []


WRITERS = {
    "tasks.ts_forecast.data.ForecastData": write_series,
    "tasks.ts_classification.data.SeriesClasses": write_cases,
    "tasks.ts_anomaly.data.AnomalyData": write_recording,
}

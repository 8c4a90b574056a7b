"""Tiny data in the layouts of the anomaly sets, and data modules over it, for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.ts_anomaly.data import AnomalyData

CHANNELS = ("A-1", "B-1", "C-1")
TRAIN, TEST = (40, 9, 50), (30, 25, 33)


def values(rows: int, variates: int = 2, first: float = 0.0) -> np.ndarray:
    """Column j of row i holds first + i + j / 10: every value says where it comes from."""
    return first + np.arange(rows)[:, None] + np.arange(variates) / 10


def write_telemetry(path: Path) -> Path:
    """Three channels that start at 0, 1000 and 2000; steps 3 to 5 of each test part are anomalous."""
    train = np.concatenate([values(n, first=1000 * i) for i, n in enumerate(TRAIN)])
    test = np.concatenate([values(n, first=1000 * i) for i, n in enumerate(TEST)])
    label = np.concatenate([np.isin(np.arange(n), (3, 4, 5)) for n in TEST]).astype(np.uint8)
    offsets = {"train_offsets": np.cumsum([0, *TRAIN]), "test_offsets": np.cumsum([0, *TEST])}
    np.savez(path, train=train, test=test, label=label, channels=np.array(CHANNELS), **offsets)
    return path


def write_smd(root: Path) -> None:
    """machine-1-10 sorts after machine-1-2, as numbers do."""
    for machine, rows in (("machine-1-1", 30), ("machine-1-2", 25), ("machine-1-10", 20)):
        for kind, content in (
            ("train", values(rows)),
            ("test", values(rows) + 5),
            ("test_label", (np.arange(rows) == 7).astype(int)),
        ):
            folder = root / "ServerMachineDataset" / kind
            folder.mkdir(parents=True, exist_ok=True)
            np.savetxt(folder / f"{machine}.txt", content, delimiter=",", fmt="%g")


def write_psm(root: Path) -> None:
    """A time column, two features, one gap in the train part."""
    folder = root / "PSM"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        table = pd.DataFrame(values(30), columns=["feature_0", "feature_1"])
        table.insert(0, "timestamp_(min)", np.arange(30))
        if split == "train":
            table.loc[4, "feature_1"] = np.nan
        table.to_csv(folder / f"{split}.csv", index=False)
    labels = pd.DataFrame({"timestamp_(min)": np.arange(30), "label": (np.arange(30) > 20).astype(int)})
    labels.to_csv(folder / "test_label.csv", index=False)


def write_nab(root: Path) -> None:
    """Two hourly series of 40 rows; hours 20 to 22 of the first are one window, the second has none."""
    folder = root / "nab"
    folder.mkdir(parents=True)
    hours = pd.date_range("2014-01-01", periods=40, freq="h")
    for i, name in enumerate(("one", "two")):
        table = pd.DataFrame({"timestamp": hours, "value": values(40, 1, 100.0 * i)[:, 0]})
        table.to_csv(folder / f"real__{name}.csv", index=False)
    windows = {"real/one.csv": [[str(hours[20]), str(hours[22])]], "real/two.csv": [], "real/absent.csv": []}
    (folder / "combined_windows.json").write_text(json.dumps(windows))


def write_csv(path: Path, rows: int = 60, label: str | None = "label", anomalous: tuple[int, ...] = (40, 41)) -> Path:
    """Two noisy hourly series and a constant one; the anomalous rows stand out."""
    table = pd.DataFrame({"date": pd.date_range("2021-03-01", periods=rows, freq="h")})
    noise = np.random.default_rng(0).normal(size=(rows, 2))
    table["a"], table["b"], table["flat"] = noise[:, 0], noise[:, 1], 3.0
    table.loc[list(anomalous), "a"] += 20
    if label is not None:
        table[label] = np.isin(np.arange(rows), anomalous).astype(int)
    table.to_csv(path, index=False)
    return path


def data(layout: str, **changes: Any) -> AnomalyData:
    """A data module over one of the layouts; reconstruction of windows of 5 unless told otherwise."""
    arguments = {"lookback": 5, "horizon": 5, "variates": None, "batch_size": 4, "validation": 0.2, **changes}
    files = {
        "telemetry": ["telemetry.npz"],
        "smd": ["ServerMachineDataset/train/machine-1-1.txt"],
        "psm": ["PSM/train.csv"],
        "nab": ["nab/combined_windows.json"],
        "csv": [],
    }[layout]
    return AnomalyData(name=layout, source={"format": layout, "files": files}, download=False, **arguments)


def ready(layout: str, **changes: Any) -> AnomalyData:
    module = data(layout, **changes)
    module.setup()
    return module

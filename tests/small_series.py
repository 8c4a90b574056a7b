"""The small series that many tests forecast."""

from pathlib import Path

import numpy as np
import pandas as pd

ROWS, COLUMNS = 240, ("load", "heat", "wind")
LOOKBACK, HORIZON, BATCH = 24, 12, 16


def write_series(path: Path, rows: int = ROWS, first: int = 0) -> Path:
    """Hourly sine waves with noise; rows from `first` on, so that a longer file continues a shorter one."""
    hour = np.arange(first + rows)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.1, (first + rows, len(COLUMNS)))
    values = (np.sin(2 * np.pi * (hour / 24 + np.array([0, 0.2, 0.5]))) + noise) * [10, 3, 1] + [100, 0, -5]
    table = pd.DataFrame(values[first:], columns=COLUMNS)
    table.insert(0, "date", pd.date_range("2020-01-01", periods=first + rows, freq="h")[first:])
    table.to_csv(path, index=False)
    return path

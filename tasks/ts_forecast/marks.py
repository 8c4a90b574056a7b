"""Time features of dates: "timeF" with freq=h of the forecasting papers (LTSF-Linear, arXiv 2205.13504)."""

import numpy as np
import pandas as pd

MARKS = 4


def time_features(dates: pd.DatetimeIndex) -> np.ndarray:
    """(R,) dates -> (R, 4) float32 in [-0.5, 0.5]: hour/23, weekday/6 (Monday 0), (day-1)/30, (day of year-1)/365, each
    less 0.5. The papers use these four for every sampling step, also for daily and 10-minute data."""
    parts = [dates.hour / 23, dates.day_of_week / 6, (dates.day - 1) / 30, (dates.day_of_year - 1) / 365]
    return np.stack([np.asarray(p, dtype=np.float64) for p in parts], axis=1).astype(np.float32) - np.float32(0.5)


def following(dates: pd.DatetimeIndex, steps: int, frequency: str | None = None) -> pd.DatetimeIndex:
    """The `steps` dates after the last one, at `frequency`, else at the step that the dates keep (else the median)."""
    step = frequency or (pd.infer_freq(dates[-64:]) if len(dates) >= 3 else None)
    if step is None:
        if len(dates) < 2:
            raise ValueError(
                "the step between dates cannot be told from a single row: set data.frequency (e.g. h, 15min, D)"
            )
        step = pd.Timedelta(np.median(np.diff(dates.asi8)), unit=dates.unit)
    return pd.date_range(dates[-1], periods=steps + 1, freq=step)[1:]

"""A finished run recomputed with numpy from its CSV and its checkpoint: nothing of tasks/ or engine/ is used."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from models.itransformer import ITransformer

LOOKBACK, HORIZON, SEASON = 24, 12, 24


def load_model(checkpoint: Path) -> ITransformer:
    """The small iTransformer of a checkpoint."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    model = small_model()
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    return model.eval()


def time_marks(dates: pd.DatetimeIndex) -> np.ndarray:
    """Hour, weekday, day of the month and of the year, each in [-0.5, 0.5]: (steps, 4)."""
    parts = (dates.hour / 23, dates.day_of_week / 6, (dates.day - 1) / 30, (dates.day_of_year - 1) / 365)
    return np.stack([np.asarray(part) - 0.5 for part in parts], axis=1)


class Series:
    """The CSV split 70/10/20 in time, scaled by its training rows."""

    def __init__(self, path: Path):
        table = pd.read_csv(path, parse_dates=["date"])
        self.dates = pd.DatetimeIndex(table.pop("date"))
        self.values = table.to_numpy()
        rows = len(self.values)
        self.train, self.test = int(0.7 * rows), int(0.2 * rows)
        known = self.values[: self.train]
        self.mean, self.std = known.mean(0), known.std(0)
        self.naive = np.abs(known[SEASON:] - known[:-SEASON]).mean(0)
        self.scaled = (self.values - self.mean) / self.std

    def windows(self, first: int, last: int) -> list[int]:
        """The row of the first forecast step of every window whose horizon lies in rows [first, last)."""
        return list(range(first, last - HORIZON + 1))

    def forecast(self, model: torch.nn.Module, start: int, dates: pd.DatetimeIndex | None = None) -> np.ndarray:
        """(H, N) scaled forecast of the steps from row `start` on."""
        dates = self.dates if dates is None else dates
        spans = (slice(start - LOOKBACK, start), slice(start, start + HORIZON))
        x = torch.tensor(self.scaled[spans[0]], dtype=torch.float32)
        marks = [torch.tensor(time_marks(dates[span]), dtype=torch.float32)[None] for span in spans]
        with torch.inference_mode():
            return model(x[None], *marks)[0].double().numpy()


def small_model() -> ITransformer:
    """What the fixture `tiny` names."""
    return ITransformer(LOOKBACK, HORIZON, d_model=16, depth=1, heads=2, d_ff=16)

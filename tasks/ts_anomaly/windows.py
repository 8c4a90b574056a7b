"""Windows over segments, none of which crosses from one segment into the next.

Shapes: R rows of all segments one below the other, N variates, L look-back, H horizon, B batch, W windows.
"""

import torch
from torch import Tensor

SCORINGS = ("reconstruction", "forecast")


def span(scoring: str, lookback: int, horizon: int) -> int:
    """Rows that a window reads: L where it is its own target, L + H where its target follows."""
    return lookback if scoring == "reconstruction" else lookback + horizon


def every(start: int, stop: int, length: int, stride: int = 1) -> Tensor:
    """(W,) first rows of the windows of `length` rows within [start, stop)."""
    return torch.arange(start, max(start, stop - length + 1), stride)


def tiles(start: int, stop: int, length: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Windows within [start, stop) whose last H rows cover every row from start + length - H on.

    They stand side by side; the last one is right-aligned. Returns (W,) first rows and (W,) how many of a window's H
    targets the window before it has covered already; both empty where not even one window fits.
    """
    rows = stop - start - length + horizon
    if rows < horizon:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    offsets = torch.arange(0, rows, horizon)
    first = offsets.clamp_max(rows - horizon)
    return start + first, offsets - first


class SegmentWindows:
    """Windows at given first rows.

    `ds[index]` with index (B,) int64 -> {"x": (B, L, N) float32, "y": (B, H, N) float32: the last H rows of the window,
    which under reconstruction are x itself; "rows": (B,) the row of the first target; "covered": (B,) how many targets
    an earlier window has covered}. One strided view is gathered from, as in the forecasting task.
    """

    def __init__(
        self, values_RN: Tensor, starts: Tensor, lookback: int, horizon: int, length: int, covered: Tensor | None = None
    ):
        self.starts, self.lookback, self.horizon, self.length = starts, lookback, horizon, length
        self.covered = torch.zeros_like(starts) if covered is None else covered
        values_RN = values_RN.contiguous()
        rows, self.variates = values_RN.shape
        count = max(0, rows - length + 1)
        self._windows = values_RN.as_strided((count, length * self.variates), (self.variates, 1))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(index).reshape(-1)
        starts = self.starts[index]
        window = self._windows.index_select(0, starts).view(len(index), self.length, self.variates)
        return {
            "x": window[:, : self.lookback].contiguous(),
            "y": window[:, -self.horizon :],
            "rows": starts + self.length - self.horizon,
            "covered": self.covered[index],
        }

"""Windows over a series, gathered as whole tensors.

Shapes: R rows, N variates, T marks, L look-back, H horizon, B batch, W windows (at the stride).
Measured (one CPU thread, L=H=96, N=7, B=32): index_select on overlapping strided rows 21 us a batch, fancy indexing
with (B, L+H) indices 116 us, a Python loop of slices 71 us.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.data import seeded

INPUT_SHUFFLES = ("none", "full", "halves")


def drawn(draw: Callable[..., Tensor], seed: int, purpose: str, windows: Tensor, *shape: int) -> Tensor:
    """(B, *shape): `draw` (torch.rand, torch.randn) for each of the windows (B,), a function of seed, purpose and the
    window's number alone: not of how windows are batched, nor of which others there are."""
    return torch.stack([draw(shape, generator=seeded(seed, purpose, w)) for w in windows.tolist()])


class Windows:
    """Every `stride`-th window of rows [start, stop): window w reads L rows from start + w, then H rows.

    `ds[index]` with index (B,) int64 -> {"x": (B, L, N), "y": (B, H, N), "marks": (B, L, T), "future_marks":
    (B, H, T), "window": (B,)}, contiguous, float32 but for `window` = index * stride, the windows' numbers at stride 1;
    the marks are absent where the series has none. An index outside [0, W) raises IndexError.
    input_shuffle (order sensitivity, LTSF-Linear's "Shuf." and "Half-Ex."): `full` permutes the L input rows, for each
    window otherwise, by `seed`; `halves` exchanges the first and the second half. input_noise: standard deviation of
    normal noise on the inputs, for each window otherwise, by `seed`. Marks and targets stay as they are.
    """

    def __init__(
        self,
        values_RN: Tensor,
        marks_RT: Tensor | None,
        start: int,
        stop: int,
        lookback: int,
        horizon: int,
        stride: int = 1,
        input_shuffle: str = "none",
        input_noise: float = 0.0,
        seed: int = 0,
    ):
        self.start, self.lookback, self.horizon, self.stride = start, lookback, horizon, stride
        self.variates = values_RN.shape[1]
        self.windows = max(0, stop - start - lookback - horizon + 1)
        self.count = -(-self.windows // stride)
        self.input_shuffle, self.input_noise, self.seed, self._orders = input_shuffle, input_noise, seed, None
        self._x, self._y = self._views(values_RN)
        self._marks = self._views(marks_RT) if marks_RT is not None else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(index).reshape(-1)
        batch = {"x": self._gather(self._x, index, self.lookback), "y": self._gather(self._y, index, self.horizon)}
        batch["window"] = index * self.stride
        if self.input_shuffle != "none":
            batch["x"] = self._disorder(batch["x"], batch["window"])
        if self.input_noise:
            shape = (self.lookback, self.variates)
            batch["x"] += self.input_noise * drawn(torch.randn, self.seed, "noise", batch["window"], *shape)
        if self._marks is not None:
            batch["marks"] = self._gather(self._marks[0], index, self.lookback)
            batch["future_marks"] = self._gather(self._marks[1], index, self.horizon)
        return batch

    def _views(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Two (W, L*C) and (W, H*C) views without copies: row i is the input, the target of window i * stride."""
        rows = rows.contiguous()
        width = rows.shape[1]
        stride = (self.stride * width, 1)
        offset = rows.storage_offset() + self.start * width
        return (
            rows.as_strided((self.count, self.lookback * width), stride, offset),
            rows.as_strided((self.count, self.horizon * width), stride, offset + self.lookback * width),
        )

    @staticmethod
    def _gather(view: Tensor, index: Tensor, length: int) -> Tensor:
        return view.index_select(0, index).view(len(index), length, -1)

    def _disorder(self, x_BLN: Tensor, windows: Tensor) -> Tensor:
        if self.input_shuffle == "halves":
            return x_BLN.roll(-(self.lookback // 2), dims=1)
        if self._orders is None:  # one order for each window, so that it does not depend on how windows are batched
            generator = torch.Generator().manual_seed(self.seed)
            self._orders = torch.rand(self.windows, self.lookback, generator=generator).argsort(1).to(torch.int16)
        order = self._orders[windows].long()
        return x_BLN.gather(1, order[:, :, None].expand_as(x_BLN))

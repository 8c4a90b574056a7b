"""Windows over a series, gathered as whole tensors.

Shapes: R rows, N variates, T marks, L look-back, H horizon, B batch, W windows.
Measured (one CPU thread, L=H=96, N=7, B=32): index_select on overlapping strided rows 21 us a batch, fancy indexing
with (B, L+H) indices 116 us, a Python loop of slices 71 us.
"""

import torch
from torch import Tensor

INPUT_SHUFFLES = ("none", "full", "halves")


class Windows:
    """All windows (stride 1) of rows [start, stop): window i reads L rows from start + i, then H rows.

    `ds[index]` with index (B,) int64 -> {"x": (B, L, N), "y": (B, H, N), "marks": (B, L, T), "future_marks":
    (B, H, T)}, float32, contiguous; the marks are absent where the series has none. An index outside [0, W) raises
    IndexError.
    input_shuffle (order sensitivity, LTSF-Linear's "Shuf." and "Half-Ex."): `full` permutes the L input rows, for each
    window otherwise, by `seed`; `halves` exchanges the first and the second half. Marks and targets stay as they are.
    """

    def __init__(
        self,
        values_RN: Tensor,
        marks_RT: Tensor | None,
        start: int,
        stop: int,
        lookback: int,
        horizon: int,
        input_shuffle: str = "none",
        seed: int = 0,
    ):
        self.start, self.lookback, self.horizon = start, lookback, horizon
        self.variates = values_RN.shape[1]
        self.count = max(0, stop - start - lookback - horizon + 1)
        self.input_shuffle, self.seed, self._orders = input_shuffle, seed, None
        self._x, self._y = self._views(values_RN)
        self._marks = self._views(marks_RT) if marks_RT is not None else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(index).reshape(-1)
        batch = {"x": self._gather(self._x, index, self.lookback), "y": self._gather(self._y, index, self.horizon)}
        if self.input_shuffle != "none":
            batch["x"] = self._disorder(batch["x"], index)
        if self._marks is not None:
            batch["marks"] = self._gather(self._marks[0], index, self.lookback)
            batch["future_marks"] = self._gather(self._marks[1], index, self.horizon)
        return batch

    def _views(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Two (W, L*C) and (W, H*C) views without copies: row w is window w's input, its target."""
        rows = rows.contiguous()
        width = rows.shape[1]
        stride = (width, 1)
        offset = rows.storage_offset() + self.start * width
        return (
            rows.as_strided((self.count, self.lookback * width), stride, offset),
            rows.as_strided((self.count, self.horizon * width), stride, offset + self.lookback * width),
        )

    @staticmethod
    def _gather(view: Tensor, index: Tensor, length: int) -> Tensor:
        return view.index_select(0, index).view(len(index), length, -1)

    def _disorder(self, x_BLN: Tensor, index: Tensor) -> Tensor:
        if self.input_shuffle == "halves":
            return x_BLN.roll(-(self.lookback // 2), dims=1)
        if self._orders is None:  # one order for each window, so that it does not depend on how windows are batched
            generator = torch.Generator().manual_seed(self.seed)
            self._orders = torch.rand(self.count, self.lookback, generator=generator).argsort(1).to(torch.int16)
        order = self._orders[index].long()
        return x_BLN.gather(1, order[:, :, None].expand_as(x_BLN))

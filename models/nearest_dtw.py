"""The nearest training case by dynamic time warping, all variates warped together ("DTW_D": Shokoohi-Yekta et al. 2017;
the archive's baseline in arXiv 1811.00075).

Notable: no parameters; the training cases are buffers, aeon computes the distances, over true lengths.
Shapes: B batch, M training cases, L steps, N variates, C classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import checks

NOTHING_NEAR = 1e30
"""The distance to a class that has no training case."""


class NearestDTW(nn.Module):
    """Minus the distance to the nearest training case of each class: (B, L, N), true lengths (B,) -> logits (B, C).

    The class of the greatest logit is that of the nearest case. The softmax of distances is no calibrated probability.

    Args:
        window: how far the warping may leave the diagonal, as a share of the length in (0, 1]; None: no limit.

    Raises:
        ValueError: a size is no whole number, a window outside (0, 1], or aeon is not installed.
    """

    def __init__(self, length: int, variates: int, classes: int, window: float | None = None):
        super().__init__()
        for name, value in {"length": length, "variates": variates}.items():
            checks.whole(name, value)
        checks.whole("classes", classes, least=2)
        if window is not None and not 0 < window <= 1:
            raise ValueError(f"window={window}: choose a share of the length in (0, 1], or null for no limit")
        checks.package("aeon", "model=knn_dtw")
        self.classes, self.window = classes, window
        self.register_buffer("cases", torch.empty(0, length, variates))
        self.register_buffer("lengths", torch.empty(0, dtype=torch.long))
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))

    @property
    def discovery(self) -> dict[str, Any]:
        """What `discover` depends on beside the data: nothing."""
        return {}

    def discover(self, x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """The training cases themselves."""
        return {"cases": x_MLN, "lengths": lengths_M, "labels": labels_M}

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Takes the training cases."""
        for name, tensor in found.items():
            self.register_buffer(name, tensor.to(self.cases.device))

    take_shapes = adopt

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        if x_BLN.is_meta:
            return x_BLN.new_empty(len(x_BLN), self.classes)
        nearest = x_BLN.new_full((len(x_BLN), self.classes), NOTHING_NEAR)
        if not len(self.cases):
            return -nearest
        from aeon.distances import dtw_pairwise_distance

        ends = torch.full((len(x_BLN),), x_BLN.shape[1]) if lengths_B is None else lengths_B
        threads = torch.get_num_threads()
        distances = dtw_pairwise_distance(
            cut(x_BLN, ends), cut(self.cases, self.lengths), window=self.window, n_jobs=threads
        )
        index = self.labels.expand(len(x_BLN), -1)
        distances = torch.from_numpy(distances).to(nearest)
        return -nearest.scatter_reduce(1, index, distances, "amin")


def cut(x_BLN: Tensor, lengths_B: Tensor) -> np.ndarray | list[np.ndarray]:
    """The series (N, length) without what comes after their ends; one array where all are as long."""
    series = x_BLN.transpose(1, 2).double().cpu().numpy()
    lengths = lengths_B.tolist()
    if len(set(lengths)) == 1:
        return np.ascontiguousarray(series[:, :, : lengths[0]])
    return [np.ascontiguousarray(one[:, :end]) for one, end in zip(series, lengths, strict=True)]

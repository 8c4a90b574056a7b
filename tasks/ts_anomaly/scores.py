"""One anomaly score per step, gathered from windows; thresholds and flags.

Shapes: R rows, N variates, B batch, H horizon.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

THRESHOLDS = ("train", "validation", "train_and_test")


class StepScores(Metric):
    """Mean squared error over the variates for each of R rows, and the variate that has the largest share of it.

    A row that several windows cover counts once, from the first of them (`covered` of a batch says which). Rows that no
    window covers stay 0 and unseen.
    """

    full_state_update = False

    def __init__(self, rows: int):
        super().__init__()
        self.add_state("score", torch.zeros(rows), dist_reduce_fx="sum")
        self.add_state("worst", torch.zeros(rows, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(rows, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, squared_BHN: Tensor, rows_B: Tensor, covered_B: Tensor) -> None:
        """Adds the squared errors of a batch of windows."""
        steps = torch.arange(squared_BHN.shape[1], device=squared_BHN.device)
        fresh = steps >= covered_B[:, None]
        rows = (rows_B[:, None] + steps)[fresh]
        self.score[rows] = squared_BHN.mean(-1)[fresh].to(self.score.dtype)
        self.worst[rows] = squared_BHN.argmax(-1)[fresh]
        self.seen[rows] = 1

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """(R,) score, (R,) worst variate, (R,) bool seen."""
        return self.score, self.worst, self.seen > 0


def threshold_at(ratio: float, scores: Tensor) -> float:
    """The score that `ratio` percent of `scores` lie above. The scores must not be empty."""
    return float(torch.quantile(scores.double(), 1 - ratio / 100))


def check_ratio(ratio: float) -> None:
    """ValueError unless `ratio` is a percentage in (0, 50]."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 50:
        raise ValueError(
            f"task.ratio={ratio!r}: give the percentage of normal steps that may be flagged, above 0 and at most 50"
        )

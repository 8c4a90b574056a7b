"""Detectors without training that a model must beat: reconstruction of single steps by PCA, and a random score.

Shapes: R rows, N variates.
"""

import torch
from torch import Tensor, nn

from tasks.data import at_least


class PCAReconstruction(nn.Module):
    """Mean squared error of a step's projection on the leading principal components of the fitted rows.

    Keeps the fewest components that hold `share` of the variance, at most N - 1: with one variate none is left, and the
    score is the squared distance from the mean. It knows no time.
    """

    def __init__(self, share: float = 0.9):
        super().__init__()
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"share={share!r}: give a share of the variance in (0, 1)")
        self.share = share

    def fit(self, rows_RN: Tensor) -> None:
        """Takes mean and components from the rows that models are trained on."""
        rows = rows_RN.double()
        self.mean = rows.mean(0)
        variances, axes = torch.linalg.eigh(torch.cov(rows.T, correction=0).reshape(len(self.mean), -1))
        kept = variances.flip(0).clamp_min(0).cumsum(0) / variances.clamp_min(0).sum().clamp_min(1e-12)
        count = min(int((kept < self.share).sum()) + 1, len(self.mean) - 1)
        self.axes = axes.flip(1)[:, :count]

    def score(self, rows_RN: Tensor) -> Tensor:
        """(R,) float32: the higher, the stranger."""
        centred = rows_RN.double() - self.mean
        return (centred - centred @ self.axes @ self.axes.T).square().mean(1).float()


class RandomScore(nn.Module):
    """A uniform draw per step. What a metric gives it, it gives for nothing."""

    def __init__(self, seed: int = 0):
        super().__init__()
        at_least("seed", seed, 0)
        self.seed = seed

    def fit(self, rows_RN: Tensor) -> None:
        """Learns nothing; from here on draws by `seed`."""
        self.generator = torch.Generator().manual_seed(self.seed)

    def score(self, rows_RN: Tensor) -> Tensor:
        """(R,) float32 in [0, 1)."""
        return torch.rand(len(rows_RN), generator=self.generator)

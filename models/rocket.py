"""ROCKET (Dempster et al. 2020, arXiv 1910.13051): random convolutions, two features of each, a ridge classifier.

Notable: nothing is trained by gradient; kernels come from a seed, aeon convolves, and the ridge is solved once on the
training cases (its penalty by leave-one-out), so a fit takes seconds. Kernels and coefficients are buffers.
Shapes: B batch, M training cases, L steps, N variates, C classes, K kernels, F = 2 K features.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import checks

PARTS = ("weights", "lengths", "biases", "dilations", "paddings", "channel_counts", "channels")
"""What makes up aeon's kernels, in its order."""

SHORTEST = 12
"""Steps; shorter series get zeros at their end, since a kernel has up to 11 taps."""

PENALTIES = np.logspace(-3, 3, 10)


class Rocket(nn.Module):
    """Ridge decision values of the share of positive values and the maximum of K random convolutions.

    (B, L, N), true lengths (B,) -> logits (B, C), all 0 before `adopt`. Their softmax is no calibrated probability.

    Args:
        normalise: bring each variate of a case to zero mean and unit deviation over its true steps, as the authors do;
            it takes away what the level of a series tells (measured: JapaneseVowels 0.84 with, 0.99 without).

    Raises:
        ValueError: a size is no whole number, or aeon is not installed.
    """

    def __init__(
        self,
        length: int,
        variates: int,
        classes: int,
        kernels: int = 10_000,
        normalise: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in {"length": length, "variates": variates, "kernels": kernels}.items():
            checks.whole(name, value)
        checks.whole("classes", classes, least=2)
        checks.whole("seed", seed, least=0)
        checks.switch("normalise", normalise)
        checks.package("aeon", "model=rocket")
        self.normalise = normalise
        self.length, self.variates, self.classes, self.kernels, self.seed = length, variates, classes, kernels, seed
        for part in PARTS:
            self.register_buffer(part, torch.empty(0))
        self.register_buffer("coefficients", torch.zeros(classes, 2 * kernels))
        self.register_buffer("intercept", torch.zeros(classes))

    @property
    def discovery(self) -> dict[str, Any]:
        """What `discover` depends on beside the data."""
        names = ("length", "classes", "kernels", "normalise", "seed")
        return {name: getattr(self, name) for name in names}

    def discover(self, x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """Draws the kernels and solves the ridge."""
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.preprocessing import StandardScaler

        transform = self._transform()
        scaler = StandardScaler(with_mean=False)
        ridge = RidgeClassifierCV(alphas=PENALTIES)
        ridge.fit(scaler.fit_transform(transform.transform(self._series(x_MLN, lengths_M))), labels_M.numpy())
        weights, bias = np.atleast_2d(ridge.coef_) / scaler.scale_, np.atleast_1d(ridge.intercept_)
        if len(weights) == 1:  # two classes: one value, positive for the second
            weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
        found = {part: torch.from_numpy(array) for part, array in zip(PARTS, transform.kernels, strict=True)}
        return found | {"coefficients": torch.tensor(weights).float(), "intercept": torch.tensor(bias).float()}

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Takes what `discover` found."""
        for name, tensor in found.items():
            self.register_buffer(name, tensor.to(self.intercept.device))

    take_shapes = adopt

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        if x_BLN.is_meta:
            return x_BLN.new_empty(len(x_BLN), self.classes)
        transform = self._transform()
        if len(self.weights):
            transform.kernels = tuple(getattr(self, part).cpu().numpy() for part in PARTS)
        features = torch.from_numpy(transform.transform(self._series(x_BLN.cpu(), lengths_B)))
        return nn.functional.linear(features.to(x_BLN.device), self.coefficients, self.intercept)

    def _transform(self) -> Any:
        """aeon's transform with the kernels of this seed, which depend on the series' shape alone."""
        from aeon.transformations.collection.convolution_based import Rocket as Transform

        shape = (1, self.variates, max(self.length, SHORTEST))
        threads = torch.get_num_threads()
        return Transform(self.kernels, normalise=False, n_jobs=threads, random_state=self.seed).fit(np.zeros(shape))

    def _series(self, x_BLN: Tensor, lengths_B: Tensor | None) -> np.ndarray:
        """(B, N, at least SHORTEST), 0 after a case's end."""
        steps = x_BLN.shape[1]
        if self.normalise:
            ends = torch.full((len(x_BLN),), steps) if lengths_B is None else lengths_B.cpu()
            inside = (torch.arange(steps) < ends[:, None])[..., None]
            count = ends[:, None, None]
            mean = (x_BLN * inside).sum(1, keepdim=True) / count
            deviation = (((x_BLN - mean) * inside).square().sum(1, keepdim=True) / count).sqrt()
            x_BLN = (x_BLN - mean) * inside / deviation.clamp_min(1e-8)
        short = max(0, max(self.length, SHORTEST) - steps)
        return nn.functional.pad(x_BLN, (0, 0, 0, short)).transpose(1, 2).contiguous().numpy()

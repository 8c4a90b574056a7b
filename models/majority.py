"""Always the commonest class of the training data, the floor of every classifier.

Shapes: B batch, M cases, C classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models import checks


class MajorityClass(nn.Module):
    """Logits log(n_c / n) for every case, with n_c the training cases of class c: (B, ...) -> (B, C)."""

    def __init__(self, classes: int):
        super().__init__()
        checks.whole("classes", classes)
        self.register_buffer("counts", torch.zeros(classes))

    @property
    def discovery(self) -> dict[str, Any]:
        """What `discover` depends on beside the data."""
        return {"classes": len(self.counts)}

    def discover(self, x: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        """Counts the labels (M,), the last argument."""
        return {"counts": torch.bincount(rest[-1], minlength=len(self.counts)).float()}

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Takes what `discover` found."""
        self.counts.copy_(found["counts"])

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        shares = (self.counts / self.counts.sum().clamp_min(1)).clamp_min(1e-6)
        return shares.log().expand(len(x), -1)

"""Learning-rate schedules: optimiser and lengths -> what Lightning's `lr_scheduler` takes, or None."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Callable[..., dict[str, Any] | None]


def constant(optimizer: Optimizer, *, steps_per_epoch: int, max_steps: int) -> None:
    """The learning rate stays."""


def halving(optimizer: Optimizer, *, steps_per_epoch: int, max_steps: int) -> dict[str, Any]:
    """Epochs 1 and 2 at the full rate, then half of it each epoch: "type1" of the LTSF papers (arXiv 2205.13504)."""
    return {"scheduler": LambdaLR(optimizer, lambda epoch: 0.5 ** max(0, epoch - 1)), "interval": "epoch"}


def cosine(
    optimizer: Optimizer, *, steps_per_epoch: int, max_steps: int, warmup_fraction: float = 0.0, final: float = 0.0
) -> dict[str, Any]:
    """Linear warm-up over `warmup_fraction` of all steps, then half a cosine down to `final` times the rate.

    SGDR, arXiv 1608.03983, equation 5, without restarts.

    Raises:
        ValueError: `warmup_fraction` outside [0, 1).
    """
    if not 0 <= warmup_fraction < 1:
        raise ValueError(f"optim.schedule.warmup_fraction={warmup_fraction}: choose from [0, 1)")
    warmup = round(warmup_fraction * max_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}

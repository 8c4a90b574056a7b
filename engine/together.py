"""What all processes of a run do in step: agree on numbers and on when to stop. Of one process, nothing is asked."""

import signal
import threading
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import distributed as dist


def processes() -> int:
    """How many processes there are in this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_of_all(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, which must all ask for it."""
    if processes() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / processes()


def all_of(value: Any) -> list[Any]:
    """What each process has, by rank."""
    values = [value] * processes()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def mine(values: list[Any]) -> Any:
    """What this process had when `all_of` was asked; None where there were more or fewer processes then."""
    if len(values) != processes():
        return None
    return values[dist.get_rank() if len(values) > 1 else 0]


def first_says(trainer: L.Trainer, answer: bool) -> bool:
    """The answer of the process of rank zero, where clocks or disks may tell each process something else."""
    if processes() == 1:
        return answer
    says = torch.tensor(int(answer), device=trainer.strategy.root_device)
    dist.broadcast(says, src=0)
    return bool(says)


class OwnNoise(L.Callback):
    """Every process draws its own dropout masks; the first one draws what a single process would."""

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.global_rank:
            seed = np.random.SeedSequence([torch.initial_seed(), trainer.global_rank]).generate_state(1)[0]
            torch.manual_seed(int(seed))


class StopTogether(L.Callback):
    """SIGTERM stops all processes before the same step: the first takes note, and Lightning tells the others there.

    Lightning's own handler talks to the others as soon as the signal comes, in the middle of what they are doing, and
    may then wait for them for ever.
    """

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.take_over(trainer)

    def on_test_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.take_over(trainer)

    def take_over(self, trainer: L.Trainer) -> None:
        """Replaces Lightning's handler, which it takes away itself at the end of the stage."""
        if processes() == 1 or threading.current_thread() is not threading.main_thread():
            return

        def note(*_: Any) -> None:
            trainer._signal_connector.received_sigterm = True  # what `trainer.received_sigterm` reads

        signal.signal(signal.SIGTERM, note if trainer.is_global_zero else signal.SIG_IGN)

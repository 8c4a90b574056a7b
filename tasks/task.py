"""What every task shares: the injected model, the optimiser, and what the engine asks of a task."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from tasks.schedules import Schedule, constant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.data import TaskData

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Task(L.LightningModule):
    """A LightningModule around any model of its kind. Nothing here asks which model or paper it is.

    Args:
        model: the injected model.
        optimizer: parameters -> optimiser; None for models without parameters.
        schedule: optimiser and lengths -> learning-rate scheduler or None, see `tasks.schedules`.
        monitor: the metric that early stopping, the best checkpoint and sweeps look at.
        direction: `min` or `max`.

    Raises:
        ValueError: `direction` is neither.
    """

    logged: ClassVar[tuple[str, ...]] = ()
    """What a run logs beside the loss: `val/...`, `test/...`, `figures/...`; the task's W&B workspace shows it."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        schedule: Schedule = constant,
        monitor: str = "val/loss",
        direction: str = "min",
    ):
        super().__init__()
        if direction not in ("min", "max"):
            raise ValueError(f"task.direction={direction!r}: choose min or max")
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.monitor = monitor
        self.direction = direction
        self.details: dict[str, Any] = {}
        """What does not fit a scalar: metrics per step, per class, per variate. Goes into results.json."""
        self.baseline_metrics: dict[str, dict[str, float]] = {}
        """Test metrics of the baselines that need no training."""

    def __setattr__(self, name: str, value: Any) -> None:
        """As in nn.Module, but for the name of the running hook, which Lightning sets some forty times a step.

        nn.Module looks through its parameters, buffers and modules for every attribute that is set: 0.1 ms per step.
        """
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def prepare(self, data: "TaskData") -> None:
        """Gives the model what it takes from the training data before training (shapelets, priors); nothing by default.

        Called after `data.setup`, before the optimiser is made: parameters may still change their shapes. It leaves the
        global random numbers alone, so that a run that finds everything in the cache is the same run.
        """

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimiser and, per epoch or per step as the schedule says, its learning rate."""
        optimizer = self.optimizer(p for p in self.parameters() if p.requires_grad)
        steps = self.trainer.estimated_stepping_batches
        epochs = max(1, self.trainer.max_epochs or 1)
        scheduler = self.schedule(optimizer, steps_per_epoch=max(1, int(steps) // epochs), max_steps=int(steps))
        return {"optimizer": optimizer} | ({"lr_scheduler": scheduler} if scheduler else {})

    @staticmethod
    def example_inputs(data: dict[str, Any], batch: int, device: torch.device) -> tuple[Tensor, ...]:
        """The model's inputs for a data config, on any device (meta too): what mode=describe feeds the model."""
        raise NotImplementedError

    def figures(self) -> Iterator[tuple[str, "Figure"]]:
        """(name, figure) pairs of the last test."""
        return iter(())

    def predictions(self) -> tuple[list[str], list[list[Any]]]:
        """A small table (columns, rows) of test predictions beside the truth."""
        return [], []

    def predict_file(self, data: dict[str, Any], source: Path, target: Path) -> str:
        """Reads `source`, predicts with the trained model, writes `target`; returns a line that says what it wrote."""
        raise NotImplementedError

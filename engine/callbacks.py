"""Callbacks of a run: loss history and metrics.csv, divergence, progress. All cost next to nothing per step."""

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.errors import Diverged
from engine.run import log
from engine.together import all_of, mean_of_all, mine


class History(L.Callback):
    """Keeps the curves, writes metrics.csv after every validation, and sends the training loss to the loggers.

    Args:
        path: metrics.csv.
        every: steps between two training losses that are logged.
    """

    def __init__(self, path: Path, every: int):
        self.path = path
        self.every = max(1, every)
        self.rows: list[dict[str, float]] = []
        self.train_seconds = 0.0
        self._started: float | None = None
        self._sum, self._count = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to write the same metrics.csv."""
        seconds = self.train_seconds + (time.perf_counter() - self._started if self._started else 0.0)
        return {"rows": list(self.rows), "sums": all_of(float(self._sum)), "count": self._count, "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self._count = state["rows"], state["count"]
        self._sum = mine(state["sums"])
        if self._sum is None:  # shared out among another number of processes
            self._sum = sum(state["sums"]) / len(state["sums"])
        self.train_seconds = state["seconds"]

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._sum = self._sum + outputs["loss"].detach()
        self._count += 1
        if trainer.global_step % self.every == 0:
            self.flush(trainer)

    def flush(self, trainer: L.Trainer) -> None:
        """One row of the mean training loss since the last one."""
        if not self._count:
            return
        loss = float(mean_of_all(self._sum)) / self._count
        self._sum, self._count = 0.0, 0
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.add(trainer, {"train/loss": loss, "lr": rate})
        for logger in trainer.loggers:
            logger.log_metrics(
                {"train/loss": loss, "lr": rate, "epoch": trainer.current_epoch}, step=trainer.global_step
            )

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.flush(trainer)
            self.add(trainer, {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})
            self.write(trainer)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.flush(trainer)
        self.train_seconds += time.perf_counter() - self._started
        self._started = None
        self.write(trainer)

    def add(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        """Appends a row."""
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **values})

    def write(self, trainer: L.Trainer) -> None:
        """metrics.csv, in one piece."""
        if not trainer.is_global_zero:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".tmp")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)


class StopOnDivergence(L.Callback):
    """Raises Diverged as soon as a training loss is not finite: before it can reach a checkpoint.

    On the CPU every step is looked at; on an accelerator, where a look waits for the device, every `every` steps. All
    processes of a run look at the same mean, so that they stop together.
    """

    def __init__(self, every: int):
        self.every = max(1, every)
        self._worst: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = outputs["loss"].detach()
        if loss.device.type == "cpu":
            self.look(mean_of_all(loss).item(), trainer)
            return
        self._worst = loss if self._worst is None else self._worst + loss
        if (index + 1) % self.every == 0:
            self.settle(trainer)

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.settle(trainer)

    def settle(self, trainer: L.Trainer) -> None:
        """Looks at the losses gathered on the device."""
        if self._worst is not None:
            self.look(mean_of_all(self._worst).item(), trainer)
            self._worst = None

    def look(self, loss: float, trainer: L.Trainer) -> None:
        """Raises Diverged for a loss that is no number."""
        if not math.isfinite(loss):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise Diverged(
                f"the training loss became {loss} at step {trainer.global_step} (optim.lr={rate:g}): "
                "lower optim.lr or set trainer.gradient_clip_val=1.0; the last good checkpoint is kept"
            )


class ProgressBar(L.Callback):
    """One bar over the whole training: loss, metric, time left. Without a terminal: a line per validation."""

    def __init__(self, monitor: str):
        self.monitor = monitor
        self.bar: Progress | None = None
        self._shown = 0.0

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        columns = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scores]}"),
        ]
        self.bar = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), auto_refresh=False
        )
        if not self.bar.console.is_terminal or not trainer.is_global_zero:
            self.bar = None
            return
        total = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
        self.task = self.bar.add_task("", total=total, epoch=f"1/{trainer.max_epochs}", scores="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if self.bar is None or time.monotonic() - self._shown < 0.2:
            return
        self._shown = time.monotonic()
        score = trainer.callback_metrics.get(self.monitor)
        scores = f"loss {outputs['loss'].item():.4f}" + (f"  {self.monitor} {score:.4f}" if score is not None else "")
        done = trainer.fit_loop.total_batch_idx + 1
        self.bar.update(
            self.task,
            completed=done,
            epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            scores=scores,
            refresh=True,
        )

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor)
        if self.bar is None and trainer.state.fn == "fit" and score is not None:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            log.info(f"{epoch}, step {trainer.global_step}: {self.monitor} {score:.4f}")

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: L.Trainer, task: L.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

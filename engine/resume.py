"""Exact resume: a run stopped at any moment goes on at its last resume point and ends as if nothing had happened.

A resume point is `last.ckpt`, written in one piece after a training step: model, optimiser, schedule, loops and
callbacks by Lightning, the position in the epoch by the loader, and here the states of all random number generators.
None is written at a step that validation follows: Lightning would take that validation for done.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from engine.checkpoint import read_checkpoint
from engine.errors import UserError, one_line
from engine.fingerprint import code_hash
from engine.resolvers import finished
from engine.run import Run, log
from engine.together import all_of, first_says, mine

POINT = "last.ckpt"
LEFT_BEHIND = (POINT, "best.ckpt", "metrics.csv", f".{POINT}.part", ".best.ckpt.part")
"""What a run that starts afresh in a used directory removes."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there once all of it is on disk: no file is ever torn."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises UserError where it cannot be written (a full disk); what stood at `path` then still stands there."""
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError and has the disk's in its context
            reason = next((e for e in (error, error.__context__) if isinstance(e, OSError)), error)
            raise UserError(f"cannot write {path}: {one_line(reason)}") from error
        finally:
            part.unlink(missing_ok=True)


class ResumePoints(Checkpoint):
    """Writes `last.ckpt` at most every `seconds` during training, and at its end.

    A Checkpoint, so that Lightning calls it after all other callbacks: their states of the same step go in.
    """

    def __init__(self, path: Path, seconds: float):
        self.path, self.seconds = path, seconds
        self.ended = False
        self._point: dict[str, Any] | None = None
        self._written = 0.0

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        loader = trainer.train_dataloader.state_dict()
        checkpoint["resume"] = {"ended": self.ended, "generators": all_of(generator_states()), "loader": loader}

    def on_load_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._point = checkpoint["resume"]

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self._point and self._point["ended"]:  # early, then killed before its results were written
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._written = time.monotonic()
        if self._point:  # only now: setting up loaders draws numbers, and Lightning may have done it before it restored
            trainer.train_dataloader.load_state_dict(self._point["loader"])
            states = mine(self._point["generators"])
            if states:  # else another number of processes shares the batches: other draws
                set_generator_states(states)
            self._point = None

    def on_train_batch_end(
        self, trainer: L.Trainer, task: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if not resumable(trainer, index):
            return
        if first_says(trainer, time.monotonic() - self._written >= self.seconds):
            trainer.save_checkpoint(self.path)
            self._written = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.ended = True
        trainer.save_checkpoint(self.path)


def resumable(trainer: L.Trainer, index: int) -> bool:
    """Whether the state after this step is whole: gradients used up, neither validation nor end of the epoch next."""
    counted = index if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx
    validates = trainer.val_check_batch and (counted + 1) % trainer.val_check_batch == 0
    return not (
        trainer.is_last_batch
        or trainer.should_stop
        or validates
        or (index + 1) % trainer.accumulate_grad_batches
        or trainer.global_step == trainer.max_steps
    )


def generator_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Puts back what `generator_states` gave."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def resume_point(run: Run) -> dict[str, Any] | None:
    """The contents of the run's own resume point; None where it starts afresh, and then nothing of before is left."""
    path = run.dir / POINT
    if path.is_file() and not finished(run.dir):
        try:
            contents = read_checkpoint(path)
        except UserError as error:
            log.warning(f"starting afresh: {error}")
        else:
            if contents["runner"].get("fingerprint") == run.fingerprint:
                return contents
            log.warning(f"starting afresh: {path} is of another set-up")
    for name in LEFT_BEHIND if run.leads else ():
        (run.dir / name).unlink(missing_ok=True)
    return None


def announce_resume(contents: dict[str, Any]) -> None:
    """One line that says where the run goes on; a second one where the code is not that of before."""
    log.info(f"resumed after step {contents['global_step']}, epoch {contents['epoch'] + 1}")
    if contents["runner"].get("code") != code_hash():
        log.warning("the code has changed since: the result may differ from that of an undisturbed run")

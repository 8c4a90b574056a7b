"""A training step through the runner against the same model, optimiser and batches in a bare PyTorch loop.

`python benchmarks/step.py` (or `make bench`). The two take turns, so that a machine whose speed drifts treats both
alike; prints the median step of each and the overhead.
"""

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import lightning as L
import torch
import torch.nn.functional as F

from engine import tracking
from engine.build import build_data, build_task
from engine.compose import compose_run
from engine.run import Run
from engine.train import make_trainer, skip_idle_hooks

STEPS, WARMUP = 200, 20


class Clock(L.Callback):
    """Wall time from the end of a step to the end of the next: everything that the runner does is in it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.times.append(time.perf_counter())


def through_the_runner(run: Run) -> list[float]:
    """Seconds of each step of a real run: Lightning, callbacks, logging to W&B (offline)."""
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    trainer = make_trainer(run, config, task, data)
    trainer.loggers = loggers = tracking.make_loggers(run, task)
    clock = skip_idle_hooks(Clock())
    trainer.callbacks.append(clock)
    trainer.fit(task, datamodule=data)
    tracking.close(loggers, 0)
    return [b - a for a, b in pairwise(clock.times)][WARMUP:]


def bare_loop(run: Run) -> list[float]:
    """Seconds of each step of the loop that one would write by hand."""
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    model = task.model.train()
    optimizer = task.optimizer(model.parameters())
    order = torch.randperm(len(data.train)).split(config["data"]["batch_size"])
    times = [time.perf_counter()]
    for index in order[: WARMUP + STEPS + 1]:
        batch = data.train[index]
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"], batch.get("marks"), batch.get("future_marks")), batch["y"])
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter())
    return [b - a for a, b in pairwise(times)][WARMUP:]


def main() -> None:
    """Takes turns and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", default=["preset=itransformer/etth1"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ours, bare = [], []
    limits = [
        f"trainer.limit_train_batches={WARMUP + STEPS + 1}",
        "trainer.max_epochs=1",
        "trainer.limit_val_batches=1",
    ]
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = compose_run([*arguments.overrides, *limits], Path(folder))
            bare += bare_loop(run)
            ours += through_the_runner(run)
    overhead = 100 * (median(ours) / median(bare) - 1)
    print(
        f"a step of {' '.join(arguments.overrides)}: bare loop {1000 * median(bare):.2f} ms, runner "
        f"{1000 * median(ours):.2f} ms: {overhead:+.1f} % (median of {arguments.rounds} x {STEPS}, taking turns, "
        f"{torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()

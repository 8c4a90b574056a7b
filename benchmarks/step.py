"""A training step through the runner against the same model, optimiser and batches in a bare PyTorch loop.

`python benchmarks/step.py` (or `make bench`). Each runs in a process of its own; they pass a baton every twenty steps,
so that a machine whose speed drifts treats both alike. Prints the median step of each and the overhead.
"""

import argparse
import multiprocessing
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

STEPS, BLOCK, SETTLE = 200, 20, 2
BLOCKS = 1 + -(-STEPS // (BLOCK - SETTLE))
"""The first block of each warms up; the first steps of every other one find cold caches and do not count."""


class Turns:
    """Times blocks of steps and hands over after each.

    Args:
        mine, theirs: semaphores of which one is held.
    """

    def __init__(self, mine: multiprocessing.Semaphore, theirs: multiprocessing.Semaphore):
        self.mine, self.theirs = mine, theirs
        self.blocks: list[list[float]] = []

    def begin(self) -> None:
        """Waits for the baton."""
        self.mine.acquire()
        self.block = [time.perf_counter()]

    def step(self) -> None:
        """A step has ended."""
        self.block.append(time.perf_counter())
        if len(self.block) > BLOCK:
            self.blocks.append(self.block)
            self.theirs.release()
            if len(self.blocks) < BLOCKS:
                self.begin()

    def seconds(self) -> list[float]:
        """Of every step that counts."""
        return [b - a for block in self.blocks[1:] for a, b in pairwise(block[SETTLE:])]


class Clock(L.Callback):
    """From the end of a step to the end of the next: everything that the runner does is in it."""

    def __init__(self, turns: Turns):
        self.turns = turns

    def on_train_start(self, *_: object) -> None:
        self.turns.begin()

    def on_train_batch_end(self, *_: object) -> None:
        self.turns.step()


def through_the_runner(run: Run, turns: Turns) -> None:
    """The steps of a real run: Lightning, callbacks, logging to W&B (offline)."""
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    trainer = make_trainer(run, config, task, data)
    trainer.loggers = loggers = tracking.make_loggers(run, task)
    clock = Clock(turns)
    skip_idle_hooks(clock)
    trainer.callbacks.append(clock)
    trainer.fit(task, datamodule=data)
    tracking.close(loggers, 0)


def bare_loop(run: Run, turns: Turns) -> None:
    """The loop that one would write by hand."""
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    model = task.model.train()
    optimizer = task.optimizer(model.parameters())
    order = torch.randperm(len(data.train)).split(config["data"]["batch_size"])
    turns.begin()
    for index in order[: BLOCKS * BLOCK]:
        batch = data.train[index]
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"], batch.get("marks"), batch.get("future_marks")), batch["y"])
        loss.backward()
        optimizer.step()
        turns.step()


def take_part(loop, overrides: list[str], mine, theirs, times) -> None:
    """One of the two processes: `loop` on a run of its own; its seconds go into the queue `times`."""
    limits = [f"trainer.limit_train_batches={BLOCKS * BLOCK}", "trainer.max_epochs=1", "trainer.limit_val_batches=1"]
    turns = Turns(mine, theirs)
    with tempfile.TemporaryDirectory() as folder:
        loop(compose_run([*overrides, *limits], Path(folder)), turns)
    times.put((loop.__name__, turns.seconds()))


def one_round(overrides: list[str]) -> dict[str, list[float]]:
    """Seconds of the steps of each loop, by its name."""
    context = multiprocessing.get_context("spawn")
    batons, times = (context.Semaphore(1), context.Semaphore(0)), context.SimpleQueue()
    parts = [
        context.Process(target=take_part, args=(loop, overrides, mine, theirs, times))
        for loop, mine, theirs in ((bare_loop, *batons), (through_the_runner, *batons[::-1]))
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    return dict(times.get() for _ in parts)


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", default=["preset=itransformer/etth1"])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    rounds = [one_round(arguments.overrides) for _ in range(arguments.rounds)]
    bare, ours = ([median(each[loop.__name__]) for each in rounds] for loop in (bare_loop, through_the_runner))
    overheads = [100 * (b / a - 1) for a, b in zip(bare, ours, strict=True)]
    rounds = f"median of {len(overheads)} rounds of {STEPS} steps, taking turns every {BLOCK}"
    print(
        f"a step of {' '.join(arguments.overrides)}: bare loop {1000 * median(bare):.2f} ms, runner "
        f"{1000 * median(ours):.2f} ms: {median(overheads):+.1f} % ({rounds}, {torch.get_num_threads()} threads; "
        f"by round {', '.join(f'{o:+.1f}' for o in overheads)})"
    )


if __name__ == "__main__":
    main()

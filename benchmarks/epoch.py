"""Where the wall time of an epoch goes: `python benchmarks/epoch.py` (part of `make bench`).

One epoch of training and its validation through the runner, everything on (W&B offline, progress, checkpoints). Forward
and backward are timed around the task's step and the loss's backward, the optimiser around its step without those two;
validation's forward counts as forward. The rest is data, loops, logging and checkpoints.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine import tracking
from engine.build import build_data, build_task
from engine.compose import compose_run
from engine.train import make_trainer


def timed(owner: type, name: str, spent: Counter, key: str) -> None:
    """Adds the seconds of every call of `owner.name` to `spent[key]`."""
    genuine: Callable = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return genuine(*args, **kwargs)
        finally:
            spent[key] += time.perf_counter() - start

    setattr(owner, name, wrapper)


def epoch(overrides: list[str]) -> tuple[float, Counter]:
    """(wall seconds, seconds by part) of one epoch."""
    spent: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        run = compose_run([*overrides, "trainer.max_epochs=1"], Path(folder))
        config = run.plain()
        task, data = build_task(run, config), build_data(config)
        trainer = make_trainer(run, config, task, data)
        trainer.loggers = loggers = tracking.make_loggers(run, task)
        optimizer = task.optimizer([torch.nn.Parameter(torch.zeros(1))])
        timed(type(task), "training_step", spent, "forward")
        timed(type(task), "validation_step", spent, "validation")
        timed(torch.Tensor, "backward", spent, "backward")
        timed(type(optimizer), "step", spent, "step")  # Lightning runs forward and backward within it
        start = time.perf_counter()
        trainer.fit(task, datamodule=data)
        wall = time.perf_counter() - start
        tracking.close(loggers, 0)
    return wall, spent


def main() -> None:
    """Prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", default=["preset=itransformer/etth1"])
    arguments = parser.parse_args()
    wall, spent = epoch(arguments.overrides)
    optimizer = spent["step"] - spent["forward"] - spent["backward"]
    forward = spent["forward"] + spent["validation"]
    shares = {"forward": forward, "backward": spent["backward"], "optimiser": optimizer}
    text = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in shares.items())
    print(
        f"one epoch of {' '.join(arguments.overrides)}: {wall:.1f} s; {text}: {100 * sum(shares.values()) / wall:.0f} %"
    )


if __name__ == "__main__":
    main()

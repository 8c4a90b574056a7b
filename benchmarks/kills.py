"""Kills real runs and starts them again: does every one end as the undisturbed run? `python benchmarks/kills.py`.

Every run is a process of its own that gets SIGKILL once: at a random moment of its training, or in the middle of
writing a checkpoint. The same command again must end with the same weights, metrics and curves, to the last bit.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

RUNNER = [sys.executable, str(Path(__file__).resolve().parents[1] / "runner.py")]
TRAINING = [
    "data.lookback=24",
    "data.horizon=12",
    "data.batch_size=16",
    "trainer=cpu",
    "trainer.checkpoint_seconds=0",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "model.d_model=16",
    "model.heads=2",
    "model.depth=1",
    "logger=none",
]


def final(folder: Path) -> dict[str, Any]:
    """All that must not depend on whether the run was killed."""
    results = json.loads((folder / "results.json").read_text())
    kept = {key: results[key] for key in ("status", "metrics", "baselines", "details", "steps", "objective")}
    for name in ("best.ckpt", "last.ckpt"):
        state = torch.load(folder / name, weights_only=True)["state_dict"]
        kept[name] = {key: tensor.numpy().tobytes() for key, tensor in state.items()}
    return kept | {"curves": (folder / "metrics.csv").read_text()}


def start(folder: Path, arguments: list[str]) -> subprocess.Popen:
    """The run in `folder`, in a process of its own with one thread."""
    command = [*RUNNER, *TRAINING, *arguments, f"hydra.run.dir={folder}"]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, arguments: list[str]) -> str:
    """Runs to the end; returns what was said on stderr."""
    process = start(folder, arguments)
    err = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {err}")
    return err


def kill_once(folder: Path, arguments: list[str], moment: float, writing: bool) -> str:
    """Kills a run `moment` seconds into its training, or at the first checkpoint write after that, and ends it.

    Returns what the second process said; where the first had ended before its moment, what that one said.
    """
    process = start(folder, arguments)
    while process.poll() is None and not (folder / "last.ckpt").exists():
        time.sleep(0.001)
    time.sleep(moment)
    while writing and process.poll() is None and not (folder / ".last.ckpt.part").exists():
        pass
    process.kill()
    err = process.communicate()[1]
    return err if process.returncode == 0 else finish(folder, arguments)


def main() -> None:
    """Prints how many of the killed runs ended as the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="runs killed; a third of them while writing")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    draw = random.Random(time.time_ns())
    moments = [(draw.uniform(0, 1.5), kill % 3 == 0) for kill in range(arguments.kills)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        finish(folder / "undisturbed", [])
        expected = final(folder / "undisturbed")

        def one(number: int) -> tuple[bool, bool]:
            said = kill_once(folder / str(number), [], *moments[number])
            return "resumed after step" in said, final(folder / str(number)) == expected

        with ThreadPoolExecutor(arguments.jobs) as pool:
            outcomes = list(pool.map(one, range(arguments.kills)))
    resumed, same = (sum(column) for column in zip(*outcomes, strict=True))
    writing = sum(writing for _, writing in moments)
    print(
        f"{arguments.kills} kills ({writing} while a checkpoint was written): {resumed} resumed, {same} ended the same"
    )
    sys.exit(same != arguments.kills)


if __name__ == "__main__":
    main()

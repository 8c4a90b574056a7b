"""The modes of the command: `mode=<name>` and the function that runs it."""

import importlib
from collections.abc import Callable
from typing import Any

from engine.run import Run

MODES = {
    "fit": "train, validate, and test with the best checkpoint",
    "test": "score a checkpoint on the test split: ckpt=",
    "predict": "forecast from your own file: ckpt= input= output=",
    "describe": "parameters, FLOPs, activation memory and kernels, without data",
    "claim": "run a preset and its baseline on the same seeds: does the paper's claim hold?",
    "bench": "time kernels or a whole model over a grid of shapes, right ones only: bench.what=",
    "report": "every run below a folder as one page with tables and charts: path=",
    "sync": "upload the W&B runs that were written offline: path=outputs",
    "workspace": "the task's W&B workspace, on the server or into a file: output=",
    "catalog": "every preset with its task, tags, claim and published rows: tags=",
}


def load(mode: str) -> Callable[[Run], Any]:
    """The mode's function, `engine.<mode>.<mode>`, imported only now."""
    return getattr(importlib.import_module(f"engine.{mode}"), mode)

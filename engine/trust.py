"""What a config may make: nothing but this project's, torch's and Lightning's building blocks.

A config may come from somebody's checkpoint. Nothing that stands in it is looked up, called or evaluated before it has
passed here: a `_target_` must name, at the place where it is defined, a class of the kind that its package is for; and
no value may be an interpolation, which would be evaluated (`${oc.env:TOKEN}`, `${oc.create:...}`).
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from hydra.utils import get_object
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import CheckpointIO, ClusterEnvironment, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn

from engine.errors import UserError

TRUSTED: dict[str, Callable[[Any], bool]] = {
    "models.": lambda target: inspect.isclass(target) or inspect.isfunction(target),
    "tasks.schedules.": inspect.isfunction,
    "tasks.": inspect.isclass,
    "torch.nn.": lambda target: is_a(target, nn.Module),
    "torch.optim.": lambda target: is_a(target, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    "lightning.pytorch.callbacks.": lambda target: is_a(target, Callback),
    "lightning.pytorch.plugins.": lambda target: is_a(target, CheckpointIO, ClusterEnvironment, Precision),
    "lightning.pytorch.profilers.": lambda target: is_a(target, Profiler),
    "lightning.pytorch.strategies.": lambda target: is_a(target, Strategy),
}
"""Prefix of a `_target_` -> what it may be. Helpers that happen to live or to be imported there (Lightning's `cli` and
`saving` call and unpickle what they are given) are none of these."""


def is_a(target: Any, *bases: type) -> bool:
    """Whether a target is a class of one of these kinds."""
    return inspect.isclass(target) and issubclass(target, bases)


def target_of(config: dict[str, Any]) -> Any:
    """The class or function that a trusted `_target_` names.

    Raises:
        UserError: the target is not of the kinds in `TRUSTED`, is only reachable there, or does not exist.
    """
    path = config["_target_"]
    prefix = next((prefix for prefix in TRUSTED if str(path).startswith(prefix)), None)
    if not isinstance(path, str) or prefix is None or any(part.startswith("_") for part in path.split(".")):
        raise UserError(f"_target_={path} is not trusted: a config may name {', '.join(p + '*' for p in TRUSTED)}")
    module, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise UserError(f"_target_={path} does not exist") from None
    defined = f"{getattr(target, '__module__', None)}."
    if not TRUSTED[prefix](target) or not defined.startswith(prefix) or get_object(path) is not target:
        raise UserError(f"_target_={path} is not a building block that {prefix}* is trusted for")
    return target


def check_targets(config: Any) -> None:
    """Raises UserError for the first `_target_` in a nested config that is not trusted, or interpolation in it."""
    if isinstance(config, dict):
        if "_target_" in config:
            target_of(config)
        for value in config.values():
            check_targets(value)
    elif isinstance(config, list | tuple | set):
        for value in config:
            check_targets(value)
    elif isinstance(config, str) and "${" in config:
        raise UserError(f"{config!r}: a recorded config holds values, not interpolations; it is not evaluated")

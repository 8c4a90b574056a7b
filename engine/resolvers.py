"""The resolvers that the YAML files use: `at`, `run_name`, `run_dir`."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine import CONF
from engine.fingerprint import fingerprint


def at(key: Any, table: Any) -> Any:
    """`${at:${data.horizon},{96: 256, 336: 512}}`: the key's entry, or the nearest number's, or that of `default`."""
    if key in table:
        return table[key]
    numbers = [k for k in table if isinstance(k, int | float)]
    if not numbers or not isinstance(key, int | float):
        if "default" in table:
            return table["default"]
        raise ValueError(f"{key!r} is not in the table with {list(table)}")
    return table[min(numbers, key=lambda k: abs(k - key))]


def run_name(*, _root_: DictConfig) -> str:
    """`<model>-<fingerprint>`: names a run's directory.

    Hydra asks for it before the config can be checked; a wrong one gets a name that is never used, since `launch` then
    says what is wrong with it.
    """
    try:
        identity = fingerprint(_root_)
    except (AttributeError, TypeError, ValueError, OmegaConfBaseException):
        identity = "unchecked"
    return f"{option('model', _root_.hydra.runtime.choices.model)}-{identity}"


def option(group: str, choice: str) -> str:
    """The option that a choice stands for: `model=ts_forecast`, a task's default, is an alias of its first entry."""
    if group == "task" or not (CONF / "task" / f"{choice}.yaml").exists():
        return choice
    return OmegaConf.load(CONF / group / f"{choice}.yaml").defaults[0]


def run_dir(base: str, *, _root_: DictConfig) -> str:
    """`<base>/<model>-<fingerprint>`, with -2, -3, ... where a finished run already stands."""
    first = Path(base) / run_name(_root_=_root_)
    path, copy = first, 1
    while finished(path):
        copy += 1
        path = first.with_name(f"{first.name}-{copy}")
    return str(path)


def finished(path: Path) -> bool:
    """Whether a run directory holds the results of a run that came to its end."""
    return status(path) == "done"


def status(path: Path) -> str | None:
    """`done`, `failed`, `diverged`, `interrupted`, or None where nothing has run."""
    try:
        return json.loads((path / "results.json").read_text())["status"]
    except (OSError, ValueError, KeyError):
        return None


def register() -> None:
    """Makes the resolvers known to OmegaConf."""
    OmegaConf.register_new_resolver("at", at, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)

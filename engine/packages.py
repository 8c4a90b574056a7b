"""Optional packages: what needs one says so in one line before anything is run or written. Nothing is imported here."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig

from engine.errors import UserError, nearest

LOGGERS = {"wandb": (), "csv": (), "tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy")}
"""What may stand under `logger:` and what it needs that does not come with the install.

`engine.loggers` has a class for each; mlflow-skinny, without sqlalchemy, has no local store."""

PLUGINS = {
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "hydra/launcher=slurm": ("submitit", "submitit"),
    "hydra/launcher=ray": ("ray", "ray"),
    "hydra/sweeper=optuna": ("optuna", "optuna"),
}
"""Launcher or sweeper -> (the module that it needs, the package that brings it)."""


def need_loggers(settings: Mapping[str, Any]) -> None:
    """Raises UserError for a logger that is unknown or whose package is missing."""
    for name in asked(settings):
        if name not in LOGGERS:
            raise UserError(f"logger.{name}: no such logger; {nearest(name, LOGGERS)}")
        missing = [package for package in LOGGERS[name] if not installed(package)]
        if missing:
            raise UserError(f"logger={name} needs {' and '.join(missing)}: pip install {name}")


def asked(settings: Mapping[str, Any]) -> list[str]:
    """The loggers that a config's `logger` block names: its mappings."""
    return [name for name, options in settings.items() if hasattr(options, "keys")]


def need_plugins(config: DictConfig) -> None:
    """Raises UserError where the chosen launcher or sweeper needs a package that is not installed."""
    for group in ("hydra/launcher", "hydra/sweeper"):
        option = f"{group}={config.hydra.runtime.choices[group]}"
        module, package = PLUGINS.get(option, (None, None))
        if module and not installed(module):
            raise UserError(f"{option} needs {package}, which is not installed: pip install {package}")


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False

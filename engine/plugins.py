"""Launchers and sweepers that need a package of their own: known to Hydra, and told in one line where it is missing."""

import warnings
from importlib.util import find_spec

from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from engine.errors import UserError

NEEDS = {
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra-joblib-launcher"),
    "hydra/launcher=slurm": ("submitit", "submitit"),
    "hydra/launcher=ray": ("ray", "ray"),
    "hydra/sweeper=optuna": ("optuna", "optuna"),
}
"""Option -> (the module that it needs, the package that brings it)."""


def need_plugins(config: DictConfig) -> None:
    """Raises UserError where the chosen launcher or sweeper needs a package that is not installed."""
    for group in ("hydra/launcher", "hydra/sweeper"):
        option = f"{group}={config.hydra.runtime.choices[group]}"
        module, package = NEEDS.get(option, (None, None))
        if module and not installed(module):
            raise UserError(f"{option} needs {package}, which is not installed: pip install {package}")


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def register_plugins() -> None:
    """Makes this project's plugins known: Hydra's own search finds none in an editable install."""
    # conf/hydra/launcher/joblib.yaml sets values of the schema that the plugin brings; Hydra would have it renamed
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/joblib' is validated", UserWarning)
    from hydra_plugins.runner.grid import GridSweeper
    from hydra_plugins.runner.optuna import OptunaSweeper
    from hydra_plugins.runner.ray import RayLauncher
    from hydra_plugins.runner.slurm import SlurmLauncher

    for plugin in (GridSweeper, OptunaSweeper, RayLauncher, SlurmLauncher):
        Plugins.instance().register(plugin)

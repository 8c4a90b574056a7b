"""Sweepers and launchers of this project; Hydra takes plugins from the package `hydra_plugins` alone.

Hydra imports every module here before it composes a config: what is heavy is imported when it is used.
"""

import warnings

from hydra.core.plugins import Plugins


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

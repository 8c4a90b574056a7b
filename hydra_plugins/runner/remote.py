"""What launchers share whose jobs run in other processes."""

import os
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from omegaconf import open_dict

from engine import ROOT


def compose_and_run(launcher: Any, overrides: list[str], number: int, state: dict[type, Singleton]) -> JobReturn:
    """One job, where it runs: composes its config and calls the command's function with it.

    Args:
        launcher: the launcher as it was set up: config, context and function.
        number: the job's place in the sweep.
        state: Hydra's singletons in the command's process.
    """
    Singleton.set_state(state)
    setup_globals()
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = os.environ.get("SLURM_JOB_ID", str(number)), number
    return run_job(
        hydra_context=launcher.hydra_context,
        task_function=launcher.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def project_path() -> str:
    """PYTHONPATH with this project in front: a job runs the code that its command ran."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, known)]))

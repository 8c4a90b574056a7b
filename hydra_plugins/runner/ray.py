"""hydra/launcher=ray: every job of a sweep as a task of Ray, on this machine or on a cluster that runs.

hydra-ray-launcher gives up at the first lost job, and wants a cloudpickle older than 3 and Amazon's client library.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from engine.errors import one_line
from engine.run import log
from hydra_plugins.runner.remote import compose_and_run, project_path


class RayLauncher(Launcher):
    """Starts or joins Ray, waits for all jobs, and returns what each returned, or why it did not.

    Args:
        init: arguments of `ray.init`: `address=auto` joins a cluster.
        remote: what a job takes, as arguments of `ray.remote`: `num_cpus`, `num_gpus`, `resources`.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]):
        self.init, self.remote = OmegaConf.to_container(init), OmegaConf.to_container(remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        import ray

        known = {name: os.environ[name] for name in ("RUNNER_SWEEP", "RUNNER_DATA") if name in os.environ}
        environ = {"env_vars": {"PYTHONPATH": project_path(), **known}}
        folder = os.getcwd()
        if not ray.is_initialized():
            ray.init(**{"runtime_env": environ, "logging_level": "warning", **self.init})
        task = ray.remote(max_retries=0, **self.remote)(job)
        state = Singleton.get_state()
        log.info(f"Ray: {len(job_overrides)} tasks")
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        sent = [task.remote(self, folder, list(o), n, state) for o, n in zip(job_overrides, numbers, strict=True)]
        return [outcome(one) for one in sent]


def job(
    launcher: RayLauncher, folder: str, overrides: list[str], number: int, state: dict[type, Singleton]
) -> JobReturn:
    """One job, in a process of Ray's; relative paths mean what they mean to the command."""
    os.chdir(folder)
    return compose_and_run(launcher, overrides, number, state)


def outcome(sent: Any) -> JobReturn:
    """What a job returned; one whose process was lost has failed."""
    import ray

    try:
        return ray.get(sent)
    except ray.exceptions.RayError as error:
        failed = JobReturn(status=JobStatus.FAILED)
        failed.return_value = RuntimeError(one_line(error))
        return failed

"""hydra/launcher=slurm: every job of a sweep as a task of one Slurm job array, submitted through submitit.

hydra-submitit-launcher gives up at the first killed job and asks Slurm's accounting, which not every cluster has, for
the state of the others: this launcher waits for all and asks the queue.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from engine.errors import UserError, one_line, user_errors
from engine.run import log
from hydra_plugins.runner.remote import compose_and_run, project_path

if TYPE_CHECKING:
    from submitit import Job

GONE = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
"""States of a Slurm job that does not run any more."""
USUAL = {
    "None",
    "Resources",
    "Priority",
    "JobArrayTaskLimit",
    "BeginTime",
    "Cleaning",
    "NonZeroExitCode",
    "RaisedSignal",
}
"""Reasons of a job's state that need no word."""
PATIENCE = 10.0
"""Seconds that the result of an ended job may take to appear on the shared folder."""


class SlurmLauncher(Launcher):
    """Submits, waits, and returns what every job returned, or why it did not.

    Args:
        folder: where submitit keeps scripts, logs and results.
        poll: seconds between two looks at the queue.
        max_num_timeout: how often a job that reaches its time limit is queued again, to go on from its checkpoint.
        parameters: submitit's own, like `timeout_min`, `cpus_per_task`, `slurm_partition`.
    """

    def __init__(self, folder: str, poll: float, max_num_timeout: int, **parameters: Any):
        self.folder, self.poll, self.max_num_timeout = folder, poll, max_num_timeout
        plain = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in parameters.items()}
        self.parameters = {k: v for k, v in plain.items() if v is not None}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self.submit(job_overrides, initial_job_idx)
        array = jobs[0].job_id.partition("_")[0]
        log.info(f"Slurm job {array}: {len(jobs)} tasks; logs in {self.folder}")
        try:
            wait(jobs, self.poll)
        except KeyboardInterrupt:
            log.info(f"what is submitted goes on: squeue --job {array}, scancel {array}")
            raise
        return [outcome(job) for job in jobs]

    def submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> "list[Job[JobReturn]]":
        """One job array.

        Raises:
            UserError: there is no Slurm here, or it refuses a setting.
        """
        import submitit

        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=slurm: there is no sbatch on this machine; give the command on one of the cluster"
            )
        os.environ["PYTHONPATH"] = project_path()
        with user_errors(submitit.core.utils.FailedJobError, NameError):
            executor = submitit.AutoExecutor(self.folder, "slurm", slurm_max_num_timeout=self.max_num_timeout)
            executor.update_parameters(**self.parameters)
            numbers = range(first, first + len(job_overrides))
            state = Singleton.get_state()
            return executor.map_array(self, [list(o) for o in job_overrides], numbers, [state] * len(job_overrides))

    def __call__(self, overrides: list[str], number: int, state: dict[type, Singleton]) -> JobReturn:
        """One job, on its node."""
        return compose_and_run(self, overrides, number, state)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit queues again at the time limit: the same job, which goes on from its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def wait(jobs: "Iterable[Job[JobReturn]]", poll: float) -> None:
    """Returns when every job has a result, or has left the queue without one."""
    waiting = {job.job_id: job for job in jobs}
    missed: dict[str, float] = {}
    told: set[str] = set()
    while waiting:
        states = queue(next(iter(waiting)).partition("_")[0])
        if states is not None and (stuck := {state.partition(" ")[2] for state in states.values()} - USUAL - told):
            log.warning(f"Slurm lets jobs wait: {', '.join(sorted(stuck))}")
            told |= stuck
        for name, job in list(waiting.items()):
            if job.paths.result_pickle.exists():
                del waiting[name]
            elif states is not None and states.get(name, "COMPLETED").partition(" ")[0] in GONE:
                if time.monotonic() - missed.setdefault(name, time.monotonic()) > PATIENCE:
                    del waiting[name]
            else:
                missed.pop(name, None)
        time.sleep(poll if waiting else 0)


def queue(array: str) -> dict[str, str] | None:
    """State and reason of every task of an array that the queue still knows; None while the controller is silent."""
    call = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={array}", "--format=%F_%K %T %r"]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    lines = (line.split(" ", 1) for line in done.stdout.splitlines())
    return {name.removesuffix("_N/A"): state for name, state in lines}  # an array of one is no array


def outcome(job: "Job[JobReturn]") -> JobReturn:
    """What a job returned; one that was killed has failed."""
    try:
        if job.paths.result_pickle.exists():
            return job.results()[0]
        raise RuntimeError("it left the queue without a result: killed, or out of time or memory")
    except Exception as error:  # submitit raises whatever ended the job
        failed = JobReturn(status=JobStatus.FAILED)
        failed.return_value = RuntimeError(f"Slurm job {job.job_id}: {one_line(error)}; log: {job.paths.stderr}")
        return failed

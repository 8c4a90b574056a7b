"""A sweep: what each job needs is found out before any starts, only that is launched, and a table tells the rest.

Works around any launcher: `Ledger` is a launcher that hands a part of its jobs to another one. It trusts the run
directories, not what the other launcher returns: a job may have been killed, or run by another process.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from engine.attempts import RUNS, Plan, begun, plan, stale
from engine.check import check
from engine.errors import UserError, one_line
from engine.fingerprint import digest
from engine.lock import holder
from engine.resolvers import finished
from engine.results import read_results
from engine.run import log

OUTCOMES = ("done", "resumed", "skipped", "failed", "interrupted", "running elsewhere", "not started")
"""What may have become of a job, as the table names it."""
ENDED_WELL = ("done", "resumed", "skipped")
ROWS = 60
"""The most rows of the table; of a larger sweep it shows only the jobs that need a look."""


class Unfinished(UserError):
    """Some jobs of a sweep have no results. Exit code 1."""

    exit_code = 1


@dataclass
class Job:
    """One job: its overrides, directory, what is to be done, and how often it had begun before."""

    overrides: list[str]
    dir: Path
    plan: Plan
    stale: bool
    begun: int
    returned: bool = False

    def outcome(self) -> str:
        """One of OUTCOMES."""
        if holder(self.dir):
            return "running elsewhere"
        if self.plan == Plan.SKIP:
            return "skipped"
        if self.plan == Plan.GIVEN_UP:
            return "failed"
        status = read_results(self.dir).get("status")
        if begun(self.dir) == self.begun:
            return "done" if self.returned and status is None else "not started"
        if status == "done":
            return "resumed" if self.plan == Plan.RESUME else "done"
        return "failed" if status in ("failed", "diverged") else "interrupted"

    def reason(self, outcome: str) -> str:
        """What a reader wants to know about the outcome, on one line."""
        results = read_results(self.dir)
        if outcome == "failed":
            again = f" (not tried again after {self.begun} attempts)" if self.plan == Plan.GIVEN_UP else ""
            return f"{one_line(Exception(results.get('error') or results.get('status')))}{again}"
        if outcome == "running elsewhere":
            return str(holder(self.dir) or "")
        return "made by other code: rerun=stale does it again" if outcome == "skipped" and self.stale else ""


class Ledger(Launcher):
    """A launcher around another one: passes on what is to be done and keeps account of all.

    As a context it shows the account at its end, after Ctrl-C too.

    Args:
        launcher: runs the jobs.
        context: Hydra's config loader, with which jobs are composed.
        config: the sweep's config.
        failures_count: whether failed jobs leave the sweep unfinished; in a search they are answers like others.
    """

    def __init__(self, launcher: Launcher, context: HydraContext, config: DictConfig, failures_count: bool = True):
        self.launcher, self.context, self.config = launcher, context, config
        self.ended = ENDED_WELL if failures_count else (*ENDED_WELL, "failed")
        self.jobs: list[Job] = []
        self.name = digest(sorted(config.hydra.overrides.task))

    def setup(self, **_: Any) -> None:
        """Nothing: the launcher inside is set up."""

    def __enter__(self) -> "Ledger":
        os.environ.setdefault("RUNNER_SWEEP", self.name)  # for the jobs, whose own command line may be another's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.environ.get("RUNNER_SWEEP") == self.name:
            del os.environ["RUNNER_SWEEP"]
        outcomes = [job.outcome() for job in self.jobs]
        if self.jobs:
            show(self.jobs, outcomes)
        left = [job for job, outcome in zip(self.jobs, outcomes, strict=True) if outcome not in self.ended]
        if left and error is None:
            counts = told(o for o in outcomes if o not in self.ended)
            again = "raise retries= to try them again", "the same command goes on"
            ways = {again[job.plan != Plan.GIVEN_UP] for job in left}
            raise Unfinished(f"of {len(outcomes)} jobs: {counts}; {', '.join(sorted(ways))}")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Runs what is to be run of a batch.

        Returns:
            One for each job; of one that has no results, with None as its value.

        Raises:
            UserError: a config is wrong; nothing has been started then.
        """
        batch = [self.plan(list(o), initial_job_idx + n) for n, o in enumerate(job_overrides)]
        self.jobs += batch
        wanted: dict[Path, Job] = {}
        for job in batch:
            if job.plan not in RUNS:
                self.say_why_not(job)
            elif where := holder(job.dir):
                log.info(f"{job.dir}: {where} is running it, skipped")
            else:
                wanted.setdefault(job.dir, job)
        log.info(f"{len(batch)} jobs, {len(wanted)} of them to run")
        for job, value in zip(wanted.values(), self.run(list(wanted.values()), initial_job_idx), strict=False):
            job.returned = value.status == JobStatus.COMPLETED
            if value.status == JobStatus.FAILED:
                log.error(f"{job.dir}: {one_line(value._return_value)}")
        return [self.returned(job) for job in batch]

    def plan(self, overrides: list[str], number: int) -> Job:
        """Composes and checks one job's config and looks into its directory."""
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num = config.hydra.job.id = number
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
            cfg = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
            check(cfg, list(config.hydra.overrides.task))
        except UserError as error:
            raise UserError(f"job {number} ({' '.join(overrides)}): {error}") from error
        finally:
            HydraConfig.instance().cfg = before
        return Job(overrides, folder, plan(folder, cfg.rerun, cfg.retries), stale(folder), begun(folder))

    def run(self, jobs: list[Job], number: int) -> Sequence[JobReturn]:
        """Hands jobs to the launcher, each with its directory; a launcher that fails does not end the account."""
        if not jobs:
            return []
        try:
            return self.launcher.launch([self.pinned(job) for job in jobs], initial_job_idx=number)
        except (UserError, OSError):
            raise
        except Exception as error:  # a worker was lost, say: what the other jobs did is still to be told
            log.error(f"the launcher stopped: {one_line(error)}")
            return []

    def pinned(self, job: Job) -> list[str]:
        """The job's overrides, with the directory that was found here."""
        name = job.dir.relative_to(str(self.config.hydra.sweep.dir))
        quoted = str(name).replace("\\", "\\\\").replace("'", "\\'")
        return [*job.overrides, f"hydra.sweep.subdir='{quoted}'"]

    def say_why_not(self, job: Job) -> None:
        """One line about a job that is not launched."""
        if job.plan == Plan.SKIP:
            log.info(f"{job.dir}: finished before, skipped" + (" (made by other code)" if job.stale else ""))
        else:
            log.info(f"{job.dir}: failed before, not tried again after {job.begun} attempts (rerun=, retries=)")

    def returned(self, job: Job) -> JobReturn:
        """What Hydra and its sweepers get for a job: its stored metric."""
        value = read_results(job.dir).get("objective") if finished(job.dir) else None
        found = JobReturn(overrides=job.overrides, working_dir=str(job.dir), status=JobStatus.COMPLETED)
        found.return_value = value
        return found


def show(jobs: list[Job], outcomes: list[str]) -> None:
    """The table of a sweep and its counts, on stdout."""
    from rich.console import Console
    from rich.table import Table

    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = list(zip(jobs, outcomes, strict=True))
    if len(rows) > ROWS:
        rows = [(job, outcome) for job, outcome in rows if outcome not in ENDED_WELL][:ROWS]
    table = Table(title="the sweep", title_justify="left")
    for column in ("job", "outcome", "metric", "why", "directory"):
        table.add_column(column, overflow="fold")
    for job, outcome in rows:
        metric = read_results(job.dir).get("objective") if outcome in ENDED_WELL else None
        own = " ".join(o for o in job.overrides if o not in shared) or job.dir.name
        value = "" if metric is None else f"{metric:.4g}"
        table.add_row(own, outcome, value, job.reason(outcome), job.dir.name)
    console = Console()
    if rows:
        console.print(table, markup=False)
    console.print(f"{len(jobs)} job{'s' * (len(jobs) != 1)}: {told(outcomes)}", highlight=False, soft_wrap=True)


def told(outcomes: Iterable[str]) -> str:
    """`3 done, 1 failed`."""
    counts = Counter(outcomes)
    return ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o])

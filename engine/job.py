"""One job of a sweep: skipped, resumed, tried again or run, under a lock; its failure is recorded, no more."""

import os
import traceback
from typing import Any

from engine.attempts import RUNS, Plan, begin, end, forget, plan, set_aside
from engine.errors import Diverged, UserError, one_line
from engine.lock import Held, RunLock
from engine.modes import load
from engine.resolvers import finished
from engine.results import read_results, record_failure
from engine.run import Run, log


def job(run: Run) -> Any:
    """Runs the mode unless the directory's history or another process says no.

    Returns:
        What the mode returned, now or when it finished before; None for a job that failed or that another process runs.
    """
    what = plan(run.dir, run.cfg.rerun, run.cfg.retries)
    if what not in RUNS:
        return left_alone(run, what)
    if not run.leads:  # the process of rank zero locks the directory and keeps the books
        return load(run.cfg.mode)(run)
    try:
        with RunLock(run.dir):
            what = plan(run.dir, run.cfg.rerun, run.cfg.retries)  # another process may just have finished it
            return attempt(run, what) if what in RUNS else left_alone(run, what)
    except Held as held:
        log.info(f"{run.dir}: {held} is running it, skipped")
        return None


def left_alone(run: Run, what: Plan) -> Any:
    """The stored metric of a finished job, None for one that failed too often."""
    results = read_results(run.dir)
    if what == Plan.SKIP:
        log.info(f"{run.dir}: finished before, skipped")
        return results.get("objective")
    log.info(f"{run.dir}: failed before, not tried again (retries={run.cfg.retries}): {results.get('error')}")
    return None


def attempt(run: Run, what: Plan) -> Any:
    """Runs the mode and keeps the books."""
    if what == Plan.REDO:
        set_aside(run.dir)
    begin(run.dir, what)
    try:
        value = load(run.cfg.mode)(run)
    except Exception as error:  # whatever goes wrong in one job, the sweep goes on
        failed(run, error)
        return None
    except BaseException:
        end(run.dir, "interrupted")
        raise
    if finished(run.dir):
        end(run.dir, "done")
    else:
        forget(run.dir)
    return value


def failed(run: Run, error: Exception) -> None:
    """Records a failure: results.json, traceback.txt where the mistake may be ours, a line in the log."""
    status = "diverged" if isinstance(error, Diverged) else "failed"
    record_failure(run, status, error)
    end(run.dir, status)
    if not isinstance(error, UserError) or os.environ.get("RUNNER_TRACEBACK"):
        (run.dir / "traceback.txt").write_text("".join(traceback.format_exception(error)))
    log.error(f"{run.dir}: {status}: {one_line(error)}")

"""The loggers of a run: which are asked for, and what they are given at its end."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError, one_line
from engine.packages import asked
from engine.run import Run, log

if TYPE_CHECKING:
    import lightning as L

    from engine.loggers import Tracker


def make_loggers(run: Run, task: "L.LightningModule") -> list["Tracker"]:
    """Opens every logger that the config names.

    Raises:
        UserError: one cannot be opened; those before it are closed, and what they wrote is removed.
    """
    from engine import loggers

    settings, before = run.plain()["logger"], set(run.dir.glob("*"))
    opened: list[Tracker] = []
    for name in asked(settings):
        try:
            opened.append(loggers.CLASSES[name](run, task, settings))
        except Exception as error:  # the packages raise many kinds; none of them is worth losing the run's message
            close(opened, 1)
            for left in set(run.dir.glob("*")) - before:
                shutil.rmtree(left)  # `Run.close` removes the directory if nothing else is in it
            raise UserError(f"logger={name}: {one_line(error).rstrip('.')}; logger=none runs without it") from error
    return opened


def finish(
    run: Run, task: "L.LightningModule", loggers: list["Tracker"], results: dict[str, Any], best: Path | None
) -> None:
    """Gives every logger figures, final metrics and what else it can take, and closes it.

    The results are on disk by now: a logger that fails here (a server that is gone) costs its own copy, not the run.
    """
    for logger in loggers:
        try:
            logger.finish(run, task, results, best)
            logger.close(0)
        except Exception as error:  # the packages raise many kinds
            log.warning(f"{logger.__class__.__name__.lower()}: {one_line(error)}; the results are in {run.dir}")


def close(loggers: list["Tracker"], exit_code: int) -> None:
    """Ends every logger; a failed run is marked as such where the logger knows of that."""
    for logger in loggers:
        logger.close(exit_code)

"""From a composed config to a mode: checks first, heavy imports after."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from engine.check import check
from engine.errors import UserError, one_line
from engine.fingerprint import digest, fingerprint
from engine.job import job
from engine.lock import Held, RunLock
from engine.modes import load
from engine.resolvers import option
from engine.run import Run
from engine.signals import interruptible

KEEPERS = ("fit", "claim")
"""Modes that write to their directory over time, so that two at once would spoil it."""


def launch(cfg: DictConfig) -> float | None:
    """Runs the mode that the config names.

    Returns:
        The monitored metric in mode=fit (what a sweeper optimises), else None.

    Raises:
        UserError: the config is wrong; a single run exits with its code instead.
    """
    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    overrides = list(hydra.overrides.task)
    run = Run(
        cfg=cfg,
        dir=Path(hydra.runtime.output_dir),
        choices={group: option(group, choice) for group, choice in hydra.runtime.choices.items()},
        overrides=overrides,
        sweep=os.environ.get("RUNNER_SWEEP", digest(sys.argv[1:])) if sweeping else None,
    )
    try:
        check(cfg, overrides)
        if not run.leads:
            logging.disable(logging.WARNING)  # the process of rank zero says it
        run.fingerprint = fingerprint(cfg)
        with interruptible():
            return job(run) if sweeping else alone(run)
    except UserError as error:
        if sweeping or cfg.debug is True or os.environ.get("RUNNER_TRACEBACK"):
            raise
        if run.leads:
            print(f"runner: {one_line(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    finally:
        run.close()


def alone(run: Run) -> Any:
    """A single run.

    Raises:
        UserError: another process runs it, in the same directory.
    """
    mode = load(run.cfg.mode)
    if run.cfg.mode not in KEEPERS or not run.leads:
        return mode(run)
    try:
        with RunLock(run.dir):
            return mode(run)
    except Held as held:
        raise UserError(f"{run.dir}: {held} is running it; wait for its end, or set hydra.run.dir=<another>") from None

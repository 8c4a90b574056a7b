"""The command as a user gives it: in this process (fast), or in one of its own.

Importing torch and Lightning takes seconds, so tests use `call` wherever they do not need a process of their own.
"""

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import kernels
import runner

ROOT = Path(runner.__file__).resolve().parent


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error, and the folder it was given in."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"expected one line on stderr, got {self.err!r}"
        return lines[0]

    @property
    def dir(self) -> Path:
        """The run directory: the only one under outputs/."""
        found = [path.parent for path in self.folder.glob("outputs/*/*/results.json")]
        assert len(found) == 1, f"{found}; exit code {self.code}: {self.err}"
        return found[0]

    @property
    def results(self) -> dict[str, Any]:
        """results.json of the run directory."""
        return json.loads((self.dir / "results.json").read_text())


@contextmanager
def process_state() -> Iterator[None]:
    """Puts back what a command changes in its process: environment, logging, kernels, Hydra, determinism."""
    environ, argv, folder = dict(os.environ), sys.argv, os.getcwd()
    loggers = [logging.getLogger(name) for name in (None, "runner", "lightning.pytorch", "lightning.fabric")]
    state = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with kernels.using(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        os.chdir(folder)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)
        for logger, level, handlers in state:
            logger.setLevel(level)
            logger.handlers[:] = handlers
        torch.use_deterministic_algorithms(deterministic)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


def call(folder: Path, *arguments: str) -> Outcome:
    """`runner <arguments>` from `folder`, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with process_state():
        sys.argv = ["runner", *arguments]
        os.environ["COLUMNS"] = "160"
        os.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runner.main()
            except SystemExit as stop:
                code = stop.code or 0
    return Outcome(code, out.getvalue(), err.getvalue(), folder)


def start(folder: Path, *arguments: str, **environ: str) -> subprocess.Popen:
    """Starts `runner <arguments>` from `folder` in a process of its own, one that Ctrl-C reaches.

    A shell lets what it starts in the background ignore SIGINT, and tests that were started so would hand that on.
    """
    return subprocess.Popen(
        [sys.executable, str(ROOT / "runner.py"), *arguments],
        cwd=folder,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def spawn(folder: Path, *arguments: str, timeout: float = 120, **environ: str) -> Outcome:
    """`runner <arguments>` from `folder`, in a process of its own."""
    process = start(folder, *arguments, **environ)
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err, folder)

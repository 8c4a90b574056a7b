"""mode=sync: upload the W&B runs that were written offline, each once."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from engine.errors import UserError, one_line
from engine.resolvers import status
from engine.run import Run

BATCH = 20
"""Runs per call of `wandb sync`: starting it costs about a second."""

QUIET_SECONDS = 120
"""A run that still goes on writes at least its machine's load more often than this."""


def sync(run: Run) -> None:
    """Calls `wandb sync` for every offline run below `path` that it has not uploaded yet; prints a line for each.

    Raises:
        UserError: no such folder, no server, no API key, or a run that was not taken.
    """
    folder = Path(str(run.cfg.path))
    if not folder.is_dir():
        raise UserError(f"path={folder}: no such folder")
    files = sorted(folder.rglob("offline-run-*/*.wandb"))
    waiting = [file for file in files if not uploaded(file)]
    going_on = [file for file in waiting if goes_on(file)]
    ready = [file for file in waiting if file not in going_on]
    for file in going_on:
        print(f"{owner(file)}: still running, left for later")
    if not ready:
        print(f"nothing to upload below {folder}: {len(files) - len(waiting)} uploaded before")
        return
    check_server()
    failures = upload(ready)
    if failures:  # wandb gives up within seconds on a busy machine or a network that stutters
        failures = upload(list(failures))
    for file in failures:
        print(f"{owner(file)}: not uploaded")
    if failures:
        why = next(iter(failures.values()))
        raise UserError(f"{len(failures)} of {len(ready)} runs were not uploaded: {why}")


def uploaded(file: Path) -> bool:
    """Whether wandb has marked the file as uploaded."""
    return file.with_name(f"{file.name}.synced").exists()


def owner(file: Path) -> Path:
    """The run directory that an offline file belongs to: `<run>/wandb/offline-run-.../run-....wandb`."""
    return file.parents[2]


def goes_on(file: Path) -> bool:
    """Whether the run is still writing: wandb would upload its first half and mark it as done."""
    return status(owner(file)) == "running" and time.time() - file.stat().st_mtime < QUIET_SECONDS


def check_server() -> None:
    """Raises UserError where no W&B server answers: wandb itself would try again for hours."""
    import wandb

    address = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(address, timeout=20).close()
    except urllib.error.HTTPError:
        pass  # a server, if one that serves no page here
    except (OSError, ValueError) as error:
        raise UserError(
            f"no W&B server at {address} ({one_line(error)}): check the network, or set WANDB_BASE_URL to your own"
        ) from error


def command(files: list[Path]) -> list[str]:
    """The call that uploads these runs."""
    return [sys.executable, "-m", "wandb", "sync", *(str(file.parent) for file in files)]


def upload(files: list[Path]) -> dict[Path, str]:
    """Uploads runs and prints a line for each; returns those that were not taken, and why."""
    environ = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SILENT")}
    failures = {}
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        call = subprocess.run(
            command(batch), env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        said = call.stdout + call.stderr
        if "No API key configured" in said:
            raise UserError(
                "W&B has no API key: `wandb login`, or set WANDB_API_KEY (and WANDB_BASE_URL for your own server)"
            )
        for file in batch:
            if uploaded(file):
                page = re.search(rf"https?://\S+/runs/{re.escape(file.stem.removeprefix('run-'))}\b", said)
                print(f"{owner(file)}: uploaded" + (f", {page[0]}" if page else ""))
            else:
                failures[file] = reason(said)
    return failures


def reason(said: str) -> str:
    """The errors in wandb's output, on one line."""
    errors = re.findall(r"^(?:wandb: ERROR|Error:) (.+)$", said, re.MULTILINE)
    errors = [error for error in errors if "detailed error logs" not in error and error != "<no message>"]
    return (
        " ".join(errors)[:300]
        if errors
        else "wandb did not say why; `wandb login --verify` tells whether the API key is good"
    )

"""What has been tried in a run directory, and what a sweep that comes by again does there.

Every job of a sweep leaves two lines per attempt in `attempts.jsonl`: one as it begins, one as it ends. A killed one
leaves only the first.
"""

import json
import os
import shutil
import socket
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from engine.fingerprint import code_hash
from engine.results import read_results

ATTEMPTS = "attempts.jsonl"


class Plan(StrEnum):
    """What a sweep does with a job."""

    NEW = "new"
    RESUME = "resume"
    RETRY = "retry"
    REDO = "redo"
    SKIP = "skip"
    GIVEN_UP = "given up"


RUNS = (Plan.NEW, Plan.RESUME, Plan.RETRY, Plan.REDO)
"""The plans under which a job runs."""


def plan(folder: Path, rerun: str, retries: int) -> Plan:
    """What to do in a run directory that nobody works in.

    Args:
        rerun: `never`, `failed`, `stale` or `always`: what is done again of what came to its end.
        retries: how often a job that failed with the present code is tried again.
    """
    status = read_results(folder).get("status")
    if status is None:
        return Plan.NEW
    if status not in ("done", "failed", "diverged"):
        return Plan.RESUME
    if rerun == "always":
        return Plan.REDO
    if status == "done":
        return Plan.REDO if rerun == "stale" and stale(folder) else Plan.SKIP
    return Plan.RETRY if rerun != "never" and failures(folder) <= retries else Plan.GIVEN_UP


def stale(folder: Path) -> bool:
    """Whether the results were made by other code than the present one."""
    return (read_results(folder).get("versions") or {}).get("code") != code_hash()


def failures(folder: Path) -> int:
    """How often the job failed with the present code: a change of the code may be the remedy."""
    code = code_hash()
    return sum(line.get("status") in ("failed", "diverged") and line["code"] == code for line in attempts(folder))


def begun(folder: Path) -> int:
    """How often the job was begun."""
    return sum("began" in line for line in attempts(folder))


def attempts(folder: Path) -> list[dict[str, Any]]:
    """The lines of attempts.jsonl; a torn last one, from a full disk, is left out."""
    try:
        lines = (folder / ATTEMPTS).read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def begin(folder: Path, why: Plan) -> None:
    """Notes that an attempt begins, and where."""
    scheduler = os.environ.get("SLURM_JOB_ID")
    note(folder, began=now(), plan=why, host=socket.gethostname(), pid=os.getpid(), slurm=scheduler)


def end(folder: Path, status: str) -> None:
    """Notes how an attempt ended."""
    note(folder, ended=now(), status=status)


def note(folder: Path, **values: Any) -> None:
    """Appends a line."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ATTEMPTS).open("a") as file:
        file.write(json.dumps(values | {"code": code_hash()}) + "\n")


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def set_aside(folder: Path) -> None:
    """Moves what an earlier run left into `.previous-<n>`, before the job is done anew."""
    number = 1 + sum(1 for _ in folder.glob(".previous-*"))
    target = folder / f".previous-{number}"
    kept = (ATTEMPTS, ".previous-*", "lock.*", ".lock-*")
    found = [path for path in folder.iterdir() if not any(path.match(pattern) for pattern in kept)]
    target.mkdir()
    for path in sorted(found, key=lambda p: p.name == "results.json"):  # last: until then the job counts as done
        shutil.move(path, target / path.name)


def forget(folder: Path) -> None:
    """Leaves no trace of a mode that keeps no results: it is to be run every time."""
    (folder / ATTEMPTS).unlink(missing_ok=True)
    (folder / "results.json").unlink(missing_ok=True)

"""The page: one HTML file with its data, style and script inside, that asks nothing of any network.

Names and errors may hold anything. They travel as JSON in which no `<` is left, the script puts them into the page as
text only, and a content policy forbids every script and style but the two whose hashes it names.
"""

import base64
import hashlib
import json
import os
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from engine.fingerprint import code_hash
from engine.report import curves
from engine.report.read import Record
from engine.report.tables import Board, published_rows, value_of

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("dom", "table", "details", "published", "plot", "curves", "cost", "sweep", "app")


def html(boards: list[Board], path: Path, folder: Path, skipped: list[tuple[str, str]]) -> str:
    """The whole page, for a file in `folder`."""
    script = "".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    policy = f"default-src 'none'; img-src 'self' file: data:; style-src {source(style)}; script-src {source(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    return Template((ASSETS / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Runs below {path}"),
        policy=policy,
        style=style,
        script=script,
        data=embed(contents(boards, path, folder, skipped)),
    )


def source(text: str) -> str:
    """The content policy's name of an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def embed(value: Any) -> str:
    """JSON that can stand inside a script element: ASCII, no NaN, and nothing that HTML reads as markup."""
    dumped = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return dumped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def contents(boards: list[Board], path: Path, folder: Path, skipped: list[tuple[str, str]]) -> dict[str, Any]:
    """What the script is given."""
    drawn = curves.embedded(boards)
    present = code_hash()
    return {
        "path": str(path),
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "code": present,
        "skipped": {"count": len(skipped), "first": " ".join(skipped[0]) if skipped else ""},
        "curves": {"runs": sum(map(len, drawn)), "most": curves.MOST_RUNS, "points": curves.MOST_POINTS},
        "tasks": [board_contents(*pair, folder, present) for pair in zip(boards, drawn, strict=True)],
    }


def board_contents(board: Board, drawn: dict[int, dict[str, Any]], folder: Path, present: str) -> dict[str, Any]:
    """One task: columns are lists in the order of `metrics` and `keys`."""
    groups = [
        {
            "members": one.members,
            "counted": one.counted,
            "metrics": [rounded(one.mean.get(metric)) for metric in board.metrics],
            "std": [rounded(one.std.get(metric)) for metric in board.metrics],
            "seconds": rounded(one.mean.get("train_seconds")),
            "memory": rounded(one.mean.get("memory_mb")),
        }
        for one in board.groups
    ]
    return {
        "name": board.task,
        "metrics": board.metrics,
        "main": board.main,
        "lower": [metric in board.lower for metric in board.metrics],
        "keys": board.keys,
        "runs": [run_contents(run, board, drawn.get(place), folder, present) for place, run in enumerate(board.runs)],
        "groups": groups,
        "published": published_rows(board),
    }


def run_contents(run: Record, board: Board, drawn: dict[str, Any] | None, folder: Path, present: str) -> dict[str, Any]:
    """One run. What is empty is left out."""
    values = {
        "name": run.name,
        "url": quote(Path(os.path.relpath(run.folder, folder)).as_posix(), errors="surrogateescape"),
        "model": run.model,
        "data": run.data,
        "preset": run.preset,
        "seed": run.seed,
        "status": run.status,
        "mode": run.mode if run.mode != "fit" else None,
        "metrics": [rounded(run.metrics.get(metric)) for metric in board.metrics],
        "values": [typed(value_of(run, key)) for key in board.keys],
        "published": {board.metrics.index(m): v for m, v in run.published.items() if m in board.metrics},
        "source": run.source,
        "changed": run.changed,
        "baselines": {k: [rounded(v.get(m)) for m in board.metrics] for k, v in run.baselines.items()},
        "seconds": rounded(run.train_seconds),
        "memory": rounded(run.memory_mb),
        "params": run.params,
        "flops": run.flops,
        "energy": run.energy,
        "stale": bool(run.code and run.code != present),
        "overrides": " ".join(run.overrides),
        "error": run.error[:1000],
        "figures": [quote(name, errors="surrogateescape") for name in run.figures],
        "curves": {name: [[*map(rounded, column)] for column in curve] for name, curve in (drawn or {}).items()},
    }
    return {key: value for key, value in values.items() if value or (value == 0 and value is not False)}


def rounded(value: float | None) -> float | None:
    """Six significant digits are enough to show."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def typed(value: str | None) -> float | str | None:
    """A setting as a number where it is one."""
    try:
        found = float(value) if value is not None else None
    except ValueError:
        return value if value != "null" else None
    return found if found is None or abs(found) < 1e150 else value

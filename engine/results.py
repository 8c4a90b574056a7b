"""What a run leaves behind: results.json, and the closing table."""

import json
import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import ROOT
from engine.errors import one_line
from engine.fingerprint import code_hash
from engine.published import published
from engine.run import Run


def read_results(path: Path) -> dict[str, Any]:
    """results.json of a run directory; empty where there is none."""
    try:
        return json.loads((path / "results.json").read_text())
    except (OSError, ValueError):
        return {}


def write_results(run: Run, status: str, **values: Any) -> dict[str, Any]:
    """Writes results.json in one piece; where several processes share a run, one of them does.

    Args:
        status: `done`, `failed`, `diverged`, `interrupted` or, while it goes on, `running`.
        values: metrics, params, flops, seconds and what else the mode knows.
    """
    paper = run.plain().get("paper") or {}
    figures = published(run)
    results = {
        "status": status,
        "mode": run.cfg.mode,
        "fingerprint": run.fingerprint,
        "choices": named_choices(run),
        "overrides": run.overrides,
        "seed": run.cfg.seed,
        "paper": {k: paper[k] for k in ("title", "year", "arxiv", "code") if k in paper} or None,
        "published": figures,
        "metrics": {},
        **values,
        "peak_memory_mb": peak_memory_mb(),
        "versions": versions(),
    }
    if run.leads:
        replace(run.dir / "results.json", results)
    return results


def record_failure(run: Run, status: str, error: Exception) -> None:
    """Sees to it that results.json says how a job failed, whether or not its mode came to write one.

    Needs no heavy import: what failed may be one.
    """
    before = read_results(run.dir)
    made_by = (before.get("versions") or {}) | {"code": code_hash()}
    told = {"status": status, "error": one_line(error), "versions": made_by}
    known = {
        "mode": run.cfg.mode,
        "fingerprint": run.fingerprint,
        "choices": named_choices(run),
        "overrides": run.overrides,
        "seed": run.cfg.seed,
        "metrics": {},
    }
    replace(run.dir / "results.json", known | before | told)


def named_choices(run: Run) -> dict[str, Any]:
    """The chosen option of every group of ours."""
    return {k: v for k, v in run.choices.items() if not k.startswith("hydra/")}


def replace(target: Path, results: dict[str, Any]) -> None:
    """Writes results.json in one piece."""
    partial = target.with_suffix(".tmp")
    partial.write_text(json.dumps(results, indent=1, default=str) + "\n")
    os.replace(partial, target)


def peak_memory_mb() -> float:
    """Peak resident memory of this process and, where there is a GPU, what torch took of it (MiB)."""
    import torch

    unit = 1024 if platform.system() != "Darwin" else 1024**2
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return round(max(host, torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0), 1)


def versions() -> dict[str, str | None]:
    """Python, the libraries that decide numbers, this project's version, commit and code hash."""
    found = {name: version(name) for name in ("torch", "lightning", "hydra-core", "torchmetrics", "numpy", "runner")}
    return {"python": platform.python_version(), **found, "git": git_commit(), "code": code_hash()}


def git_commit() -> str | None:
    """The project's commit, with `+` where files differ from it; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        call = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def closing_table(run: Run, results: dict[str, Any]) -> None:
    """Prints the test metrics beside the paper's figures and the baselines, once for all processes of a run."""
    if not run.leads:
        return
    from rich.console import Console
    from rich.table import Table

    figures = results["published"] or {}
    baselines = results.get("baselines") or {}
    table = Table(title=f"{run.choices['model']} on {run.cfg.data.name}", title_justify="left")
    table.add_column("metric")
    table.add_column("this run", justify="right", style="bold")
    if figures:
        table.add_column("published", justify="right")
    for name in baselines:
        table.add_column(name.replace("_", " "), justify="right")
    for metric, value in results["metrics"].items():
        if metric.startswith("test/"):
            row = [metric, number(value)] + ([number(figures.get(metric))] if figures else [])
            table.add_row(*row, *(number(rows.get(metric)) for rows in baselines.values()))
    console = Console()
    console.print(table)
    if figures:
        console.print(f"published: {results['paper']['title']} ({results['paper']['year']}); {figures['source']}")
    if figures.get("changed"):
        console.print(f"not the published set-up: {', '.join(figures['changed'])}")
    seconds = results["seconds"]
    console.print(
        f"{results['params']['total']:,} parameters, {seconds['train']:.0f} s of training, "
        f"{results['peak_memory_mb']:.0f} MB; everything in {run.dir}",
        highlight=False,
        soft_wrap=True,
    )


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"

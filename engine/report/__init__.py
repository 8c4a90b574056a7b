"""mode=report: every run below a folder, in one self-contained page, as Markdown and as CSV."""

import os
from pathlib import Path

from engine.errors import UserError
from engine.report.export import csv_text, markdown
from engine.report.page import html
from engine.report.read import read_runs
from engine.report.tables import boards
from engine.run import Run, log


def report(run: Run) -> None:
    """Reads the runs below `path`; writes `report.html`, `report.md` and `report.csv` there, or where `output` says.

    Raises:
        UserError: `path` is no folder or holds no run, or the report cannot be written.
    """
    path, page = Path(str(run.cfg.path)), target(run)
    if not path.is_dir():
        raise UserError(f"path={path}: {'a file, not a folder of runs' if path.exists() else 'no such folder'}")
    records, skipped = read_runs(path)
    if skipped:
        first = f"{skipped[0][0]} ({skipped[0][1]})"
        log.warning(f"skipped {len(skipped)} results.json that hold no run's results, the first: {first}")
    if not records:
        raise UserError(f"path={path}: no run below it (a folder with a results.json that mode=fit or mode=test wrote)")
    tables = boards(records)
    write(page.with_suffix(".md"), markdown(tables, path))
    write(page.with_suffix(".csv"), csv_text(tables))
    write(page, html(tables, path, page.parent, skipped))
    runs, tasks = (f"{n:,} {word}{'s' * (n != 1)}" for n, word in ((len(records), "run"), (len(tables), "task")))
    print(f"{runs} of {tasks}: {page} (tables also as .md and .csv)")


def target(run: Run) -> Path:
    """Where the page goes: `output`, a file or a folder that exists; by default `path`.

    Raises:
        UserError: `output` names no .html file, or its folder does not exist.
    """
    chosen = Path(str(run.cfg.path if run.cfg.output is None else run.cfg.output))
    if run.cfg.output is None or chosen.is_dir():
        return chosen / "report.html"
    if chosen.suffix != ".html":
        raise UserError(f"output={chosen}: name an .html file, or a folder that exists")
    if not chosen.parent.is_dir():
        raise UserError(f"output={chosen}: the folder {chosen.parent} does not exist")
    return chosen


def write(path: Path, text: str) -> None:
    """Writes a file in one piece.

    Raises:
        UserError: the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write the report: {error.strerror or error}") from None

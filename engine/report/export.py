"""The report's tables as Markdown (one row per set-up) and as CSV (one row per run)."""

import csv
import html
import io
from collections import Counter
from pathlib import Path
from typing import Any

from engine.fingerprint import code_hash
from engine.report.read import Record
from engine.report.tables import Board, Group, difference, published_rows, value_of

FACTS = ("train_seconds", "total_seconds", "memory_mb", "params", "flops", "energy", "code")


def markdown(boards: list[Board], path: Path) -> str:
    """Every task's leaderboard and its comparison with published figures."""
    count = sum(len(board.runs) for board in boards)
    lines = [f"# Runs below {cell(str(path))}", "", f"{count:,} runs. Mean ± standard deviation over n seeds.", ""]
    present = code_hash()
    for board in boards:
        states = ", ".join(f"{n:,} {state}" for state, n in Counter(run.status for run in board.runs).most_common())
        lines += [f"## {cell(board.task)}", "", f"{len(board.runs):,} runs: {cell(states)}.", ""]
        lines += leaderboard(board, present)
        published = published_table(board)
        lines += ["### Ours beside published", "", *published, ""] if published else []
    return "\n".join(lines)


def leaderboard(board: Board, present: str) -> list[str]:
    """A row per group of runs that have finished; the others are counted above."""
    metrics = board.metrics[: board.main]
    numeric = ["n", *metrics, "seconds", "memory MB", "parameters", "FLOPs"]
    lines = table_head(["model", "data", "preset", "set-up", *numeric, "remarks"], set(numeric))
    for one in board.groups:
        if not one.counted:
            continue
        run = board.runs[one.counted[0]]
        named = [run.model, run.data, run.preset, set_up(board, run), len(one.counted)]
        scores = [mean_and_spread(one, metric) for metric in metrics]
        costs = [one.mean.get("train_seconds"), one.mean.get("memory_mb"), run.params, run.flops]
        notes = remarks([board.runs[place] for place in one.counted], present)
        lines.append(table_row(*named, *scores, *costs, notes))
    return [*lines, ""]


def published_table(board: Board) -> list[str]:
    """A row per group and published metric; empty where no paper states a figure."""
    rows = published_rows(board)
    if not rows:
        return []
    head = ["model", "data", "preset", "set-up", "metric", "ours", "n", "published", "difference", "source"]
    lines = table_head(head, {"ours", "n", "published", "difference"})
    for row in rows:
        one = board.groups[row["group"]]
        run = board.runs[one.counted[0]]
        gap = "" if row["difference"] is None else f"{row['difference']:+.1f} %"
        changed = f"not the published set-up: {', '.join(row['changed'])}" if row["changed"] else row["source"]
        ours = mean_and_spread(one, row["metric"])
        named = [run.model, run.data, run.preset, set_up(board, run), row["metric"]]
        lines.append(table_row(*named, ours, row["n"], row["published"], gap, changed))
    return lines


def set_up(board: Board, run: Record) -> str:
    """The varied settings of a run: `data.horizon=96 model.depth=2`."""
    values = ((key, value_of(run, key)) for key in board.keys)
    return " ".join(f"{key}={value}" for key, value in values if value not in (None, "null"))


def mean_and_spread(one: Group, metric: str) -> str:
    """`0.4012 ± 0.0031`, or the value alone."""
    if metric not in one.mean:
        return ""
    return short(one.mean[metric]) + (f" ± {one.std[metric]:.2g}" if metric in one.std else "")


def remarks(runs: list[Record], present: str) -> str:
    """What a reader should know before comparing."""
    notes = []
    if any(run.code and run.code != present for run in runs):
        notes.append("other code")
    if any(run.published and run.changed for run in runs):
        notes.append("not the published set-up")
    if any(run.mode == "test" for run in runs):
        notes.append("mode=test")
    return ", ".join(notes)


def short(value: Any) -> str:
    """A number to four significant digits (whole ones in full); text as it is."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def table_head(names: list[str], right: set[str]) -> list[str]:
    """Heading and alignment of a Markdown table."""
    return [table_row(*names), "| " + " | ".join("---:" if name in right else "---" for name in names) + " |"]


def table_row(*values: Any) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell(short(value)) for value in values) + " |"


def cell(value: str) -> str:
    """Text that neither ends a cell nor starts markup."""
    value = html.escape(" ".join(value.split()), quote=False)
    for mark in "\\|`*[]":
        value = value.replace(mark, f"\\{mark}")
    return value


def csv_text(boards: list[Board]) -> str:
    """A row per run of every task, with all metrics, published figures and varied settings."""
    metrics = list(dict.fromkeys(metric for board in boards for metric in board.metrics))
    keys = list(dict.fromkeys(key for board in boards for key in board.keys))
    stated = [m for m in metrics if any(m in run.published for board in boards for run in board.runs)]
    head = ["task", "model", "data", "preset", "seed", "status", "mode", "run", "group", *keys, *metrics]
    head += [f"{part} {m}" for m in stated for part in ("published", "difference %")]
    head += ["changed", *FACTS, "other code", "overrides", "error"]
    text, present, first = io.StringIO(), code_hash(), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for board in boards:
        number = {place: first + n for n, one in enumerate(board.groups) for place in one.members}
        first += len(board.groups)
        for place, run in enumerate(board.runs):
            row = [run.task, run.model, run.data, run.preset, run.seed, run.status, run.mode, run.name, number[place]]
            row += [value_of(run, key) for key in keys] + [run.metrics.get(metric) for metric in metrics]
            for metric in stated:
                ours, theirs = run.metrics.get(metric), run.published.get(metric)
                row += [theirs, None if None in (ours, theirs) else difference(ours, theirs)]
            row += [", ".join(run.changed), *(getattr(run, fact) for fact in FACTS)]
            row += [bool(run.code and run.code != present), " ".join(run.overrides), run.error]
            writer.writerow(map(plain, row))
    return text.getvalue()


def plain(value: Any) -> Any:
    """A value that a spreadsheet takes for no formula."""
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return value
    try:
        return float(value)
    except ValueError:
        return f"'{value}"

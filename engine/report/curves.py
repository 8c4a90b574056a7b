"""Learning curves out of metrics.csv, thinned, for as many runs as a page can carry."""

import csv
import os
from math import isfinite

from engine.report.tables import Board

MOST_RUNS = 200
"""Runs of a report whose curves are embedded."""
MOST_POINTS = 200
"""Points per curve."""
MOST_NAMES = 6
"""Curves per run."""
MOST_BYTES = 64 << 20
"""metrics.csv files read in all: keeps a report quick whatever lies in the folders."""

Curve = tuple[list[float], list[float]]


def embedded(boards: list[Board]) -> list[dict[int, dict[str, Curve]]]:
    """Per board, the curves of its best runs by their place; every board gets its share of `MOST_RUNS`."""
    share = max(1, MOST_RUNS // max(1, len(boards)))
    budget, found = MOST_BYTES, []
    for board in boards:
        curves: dict[int, dict[str, Curve]] = {}
        for place in by_turns(board):
            path = os.path.join(board.runs[place].folder, "metrics.csv")
            size = os.path.getsize(path) if os.path.isfile(path) else 0
            if len(curves) == share or size > budget:
                break
            read = read_curves(path, board.runs[place].monitor) if size else {}
            budget -= size
            if read:
                curves[place] = read
        found.append(curves)
    return found


def by_turns(board: Board) -> list[int]:
    """The places of the runs, the best of every data set first, then the second best of each, ..."""
    seen: dict[str, int] = {}
    rank = {}
    for place, run in enumerate(board.runs):
        seen[run.data] = seen.get(run.data, -1) + 1
        rank[place] = seen[run.data]
    return sorted(rank, key=lambda place: (rank[place], place))


def read_curves(path: str, monitor: str | None) -> dict[str, Curve]:
    """{name: (steps, values)} of a metrics.csv, the monitored metric first; empty where there is nothing to read."""
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            columns = {name: i for i, name in enumerate(names) if name not in ("step", "epoch", "lr") and name}
            if "step" not in names:
                return {}
            step, points = names.index("step"), {name: ([], []) for name in columns}
            for row in rows:
                for name, i in columns.items():
                    if i < len(row) and row[i] and step < len(row):
                        add(points[name], row[step], row[i])
    except (OSError, csv.Error):
        return {}
    chosen = sorted((n for n in points if points[n][0]), key=lambda n: (n != monitor, n != "train/loss", n))
    return {name: thin(*points[name]) for name in chosen[:MOST_NAMES]}


def add(curve: Curve, step: str, value: str) -> None:
    """Appends a point where both are finite numbers."""
    try:
        x, y = float(step), float(value)
    except ValueError:
        return
    if isfinite(x) and isfinite(y):
        curve[0].append(x)
        curve[1].append(y)


def thin(steps: list[float], values: list[float], most: int = MOST_POINTS) -> Curve:
    """At most `most` points: first, last, and the smallest and largest of each stretch, so that no spike is lost."""
    count = len(values)
    if count <= most:
        return steps, values
    parts = (most - 2) // 2
    kept = {0, count - 1}
    for part in range(parts):
        stretch = range(1 + part * (count - 2) // parts, 1 + (part + 1) * (count - 2) // parts)
        kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    places = sorted(kept)
    return [steps[i] for i in places], [values[i] for i in places]

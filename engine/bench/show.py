"""Benchmark rows for the eye: a table on the terminal, Markdown, a plot."""

from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from engine.bench.ceiling import Ceiling
from engine.bench.ops import Row

COLUMNS = ("backend", "right", "fwd ms", "train ms", "MB", "rate", "of max", "speed-up")

COLOURS = {"reference": "0.6", "torch": "C0", "triton": "C1", "flex": "C2"}


def cells(row: Row, limits: Ceiling) -> list[str]:
    """A row as text, in the order of COLUMNS; of its two rates (1e9 a second) the one nearer to its limit."""
    compute, memory = (row.tflops or 0) / limits.tflops, (row.gbs or 0) / limits.gbs
    rate = f"{number(1e3 * row.tflops)} GF/s" if row.tflops and compute >= memory else f"{number(row.gbs)} GB/s"
    known = bool(row.tflops or row.gbs)
    return [
        row.backend,
        {True: "yes", False: "NO", None: "-"}[row.right],
        number(row.forward_ms),
        number(row.training_ms),
        number(row.memory_mb),
        rate if known else "-",
        f"{100 * max(compute, memory):.0f} %" if known else "-",
        f"{row.speedup:.2f} x" if row.speedup else "-",
    ]


def number(value: float | None) -> str:
    """Three digits."""
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def print_table(rows: list[Row], limits: Ceiling) -> None:
    """One table per op and shape."""
    console = Console()
    for (what, shape), same in groupby(rows, key=lambda row: (row.what, row.shape)):
        same = list(same)
        rival = next((f" (speed-up over {row.rival})" for row in same if row.rival), "")
        table = Table(title=f"{what}, {shape}{rival}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "backend" else "right", no_wrap=True)
        for row in same:
            table.add_row(*cells(row, limits))
        console.print(table)


def markdown(rows: list[Row], limits: Ceiling) -> str:
    """All rows as one table, with what they were measured on."""
    versions = ", ".join(f"{name} {value}" for name, value in limits.versions.items())
    columns = ("op", "shape", *COLUMNS, "over")
    lines = [f"{limits.device}; {versions}; {limits.words()}.", "", "| " + " | ".join(columns) + " |"]
    lines.append("| " + " | ".join("---" if i < 4 else "---:" for i in range(len(columns))) + " |")
    lines += ["| " + " | ".join([row.what, row.shape, *cells(row, limits), row.rival or "-"]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], limits: Ceiling, path: Path) -> None:
    """A point at each training (or forward) time, an axis per op. No bars: on a log scale lengths mean nothing."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    timed = [row for row in rows if row.training_ms or row.forward_ms]
    groups = [(what, list(some)) for what, some in groupby(timed, key=lambda row: row.what)]
    if not groups:
        return
    heights = [0.8 + 0.22 * len(some) for _, some in groups]
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(9, sum(heights)), squeeze=False, layout="constrained", height_ratios=heights
    )
    for axis, (what, some) in zip(axes[:, 0], groups, strict=True):
        labels = [f"{row.shape}  {row.backend}" for row in some]
        times = [row.training_ms or row.forward_ms for row in some]
        colours = [COLOURS.get(row.backend, "C3") if row.right else "white" for row in some]
        axis.scatter(times, range(len(some)), c=colours, edgecolors="black", linewidths=0.6, zorder=2)
        for place, time in enumerate(times):
            axis.annotate(f"{time:.3g}", (time, place), (6, -2.5), textcoords="offset points", fontsize=7)
        axis.grid(axis="x", which="both", alpha=0.25)
        axis.set_yticks(range(len(some)), labels, fontsize=7)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.margins(x=0.12)
        axis.set_title(what, loc="left", fontsize=9)
    axes[-1, 0].set_xlabel(
        f"ms, forward with backward where there is one; white: public implementations ({limits.device})", fontsize=8
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)

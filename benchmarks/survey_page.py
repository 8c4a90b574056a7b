"""The survey's figures and tables from its runs; see survey.py."""

from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from survey_findings import BASE, MODELS, Cells, Finding, findings, triple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = dict(zip(MODELS, ("C3", "C1", "C2", "C4", "C0", "black"), strict=True))
MARKERS = dict(zip(MODELS, "os^vDx", strict=True))
RULES = (
    "MSE is on scaled values, every 12th test window, mean ± standard deviation over seeds; a change is that of each "
    "seed's pair. *Better* (*lower*): the mean change is below zero by more than its deviation. A finding that names a "
    "size (a fifth, 5 %) must reach it too. *Seen* and *not seen* say only whether these runs pass this rule: small "
    "models, few steps, one data set."
)


def write_page(cells: Cells, folder: Path, data: str, jobs: int) -> None:
    """Four figures and <data>.md in `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    draw_lines(cells, "lookback", "steps of input", folder / f"{data}_length.png")
    draw_lines(cells, "depth", "encoder layers", folder / f"{data}_size.png")
    draw_decomposition(cells, folder / f"{data}_decomposition.png")
    draw_lines(cells, "noise", "deviation of the noise on the test inputs", folder / f"{data}_noise.png")
    versions = cells.runs[0]["versions"]
    steps = max(run["steps"] for run in cells.runs)
    seeds = ", ".join(sorted({str(run["seed"]) for run in cells.runs}))
    made = f"Made by `make survey`, {date.today()}: torch {versions['torch']}, lightning {versions['lightning']}, CPU, "
    text = [
        f"# The survey's analyses on {data}",
        "",
        f"{made}{jobs} processes of one thread, seeds {seeds}, {steps} steps. {RULES}",
        "",
        "| finding | model | measured | verdict |",
        "| --- | --- | --- | --- |",
        *(line(finding) for finding in findings(cells)),
        *section(cells, "Input length", f"{data}_length.png", "lookback"),
        *section(cells, "Model size", f"{data}_size.png", "depth"),
        *decomposition(cells, f"{data}_decomposition.png"),
        *section(cells, "Noise on the test inputs", f"{data}_noise.png", "noise"),
    ]
    (folder / f"{data}.md").write_text("\n".join(text) + "\n")


def line(finding: Finding) -> str:
    """A row of the first table."""
    verdict = {True: "seen", False: "**not seen**", None: "-"}[finding.seen]
    return f"| {finding.text} | {finding.model} | {finding.measured} | {verdict} |"


def score(values: list[float]) -> str:
    """0.386 ± 0.004"""
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}" if values else "-"


def settings(cells: Cells, key: str) -> list[Any]:
    """What the plain runs have for `key`, all else as in BASE."""
    rest = {name: value for name, value in BASE.items() if name != key}
    return sorted({run[key] for run in cells.of(**rest)})


def section(cells: Cells, title: str, figure: str, key: str) -> list[str]:
    """A figure and a table: a row per model and setting of `key`, with what it costs."""
    rows = [
        f"\n## {title}\n\n![{title}]({figure})\n",
        f"| model | {key} | test MSE | training windows | parameters | seconds of training |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in MODELS:
        for setting in settings(cells, key):
            if runs := cells.of(**BASE | {"model": model, key: setting}):
                cost = f"{runs[0]['windows']:,} | {runs[0]['params']:,}"
                seconds = "-" if key == "noise" else f"{mean(run['seconds'] for run in runs):.0f}"
                rows.append(f"| {model} | {setting} | {score([r['mse'] for r in runs])} | {cost} | {seconds} |")
    return rows


def decomposition(cells: Cells, figure: str) -> list[str]:
    """The same for decomposition and its control."""
    rows = [
        f"\n## Seasonal-trend decomposition\n\n![decomposition]({figure})\n",
        "Without and with it, look-back 96; *normalised*: each window normalised instead. iTransformer, which always "
        "normalises, has it around the model (`method=decomposition`); DLinear without it is the linear model.\n",
        "| model | horizon | without | with | change | normalised |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in MODELS:
        for horizon in (96, 336):
            without, split, normed = triple(cells, model, horizon)
            if without and split:
                change = f"{100 * (mean(split) / mean(without) - 1):+.0f} %"
                rows.append(f"| {model} | {horizon} | {score(without)} | {score(split)} | {change} | {score(normed)} |")
    return rows


def draw_lines(cells: Cells, key: str, label: str, path: Path) -> None:
    """Test MSE over the settings of `key`, a line per model, bars of one standard deviation over the seeds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    values = settings(cells, key)
    for model in MODELS:
        points = [(i, cells.mse(**BASE | {"model": model, key: value})) for i, value in enumerate(values)]
        points = [(place, scores) for place, scores in points if scores]
        if len(points) > 1:
            bars(axes, model, points)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    finish(figure, axes, label, path)


def bars(axes: "Axes", model: str, points: list[tuple[float, list[float]]]) -> None:
    """One model's line."""
    places, scores = zip(*points, strict=True)
    spread = [stdev(s) if len(s) > 1 else 0.0 for s in scores]
    style = {"color": COLOURS[model], "marker": MARKERS[model], "ms": 5, "lw": 1.4, "capsize": 3}
    axes.errorbar(places, [mean(s) for s in scores], spread, label=model, **style)


def draw_decomposition(cells: Cells, path: Path) -> None:
    """A panel per horizon: an arrow from the MSE without to that with decomposition, a ring for normalised windows."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True, layout="constrained")
    for axes, horizon in zip(panels, (96, 336), strict=True):
        for row, model in enumerate(MODELS):
            without, split, normed = triple(cells, model, horizon)
            if without and split:
                ends = {"xy": (mean(split), row), "xytext": (mean(without), row)}
                axes.annotate("", **ends, arrowprops={"arrowstyle": "->", "color": COLOURS[model], "lw": 1.6})
                for place, values, mark in ((row, without, "o"), (row, split, "D")):
                    axes.plot(values, [place] * len(values), mark, color=COLOURS[model], ms=4, alpha=0.7)
            if normed:
                axes.plot(normed, [row] * len(normed), "o", color="black", mfc="none", ms=6)
        axes.set_yticks(range(len(MODELS)), MODELS)
        axes.set_title(f"horizon {horizon}", fontsize=10)
        axes.set_xlabel("test MSE")
        axes.grid(alpha=0.3)
    panels[0].set_ylim(len(MODELS) - 0.5, -0.5)
    figure.suptitle("filled circle: without, diamond: with decomposition; ring: normalised windows instead", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def finish(figure: Any, axes: "Axes", label: str, path: Path) -> None:
    """Labels, legend, file."""
    import matplotlib.pyplot as plt

    axes.set(xlabel=label, ylabel="test MSE")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""Figures of an anomaly run: series and score around events, the scores of the whole test, precision against recall."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks.ts_anomaly.events import Event, events
from tasks.ts_anomaly.metrics import curve, runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tasks.ts_anomaly.task import AnomalyDetection

TRUTH, MODEL, SCORE = "tab:red", "tab:orange", "tab:blue"
FLOORS = ("tab:green", "0.5", "tab:purple", "tab:brown")
LONGEST, POINTS = 800, 4000
"""Steps of a stretch that is drawn; points of the figure of all scores."""


def draw(task: "AnomalyDetection") -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) pairs of the last test."""
    yield "anomalies", stretches(task, picked(events(task)))
    yield "scores", overview(task)
    if task.labels is not None:
        yield "precision_recall", precision_recall(task)


def picked(found: list[Event]) -> list[tuple[str, Event]]:
    """Three titled events: the best found, the worst missed or found, the loudest false alarm; without labels the three
    highest scores."""
    true = [e for e in found if e.kind in ("found", "missed")]
    if not true:
        return [("highest score" if i == 0 else "next", e) for i, e in enumerate(found[:3])]
    stretch = [(f"{true[0].kind}: the event with the highest score", true[0])]
    if len(true) > 1:
        stretch.append((f"{true[-1].kind}: the event with the lowest score", true[-1]))
    alarms = [e for e in found if e.kind == "false alarm"]
    return stretch + [("the loudest false alarm", e) for e in alarms[:1]]


def stretches(task: "AnomalyDetection", chosen: list[tuple[str, Event]]) -> "Figure":
    """Per event, above: the variate with the largest error at the peak, and what the model makes of it; below: the
    score, the threshold. Labelled steps are shaded."""
    import matplotlib.pyplot as plt

    height = 3.4 * max(1, len(chosen))
    figure, axes = plt.subplots(2 * max(1, len(chosen)), 1, figsize=(9, height), squeeze=False, layout="constrained")
    if not chosen:
        axes[0, 0].set_title("no step is above the threshold", fontsize=9)
    for i, (title, event) in enumerate(chosen):
        series, below = axes[2 * i, 0], axes[2 * i + 1, 0]
        below.sharex(series)
        _stretch(task, title, event, series, below)
    figure.legend(*_once(axes[:2, 0]), fontsize=8, loc="outside upper center", ncols=5)
    return figure


def _stretch(task: "AnomalyDetection", title: str, event: Event, series: "Axes", below: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    data = task.trainer.datamodule
    first, stop = around(task, event)
    variate = int(task.worst[event.peak])
    segment, place = data.segment_of(first)
    steps = (
        np.arange(place, place + stop - first) if segment.dates is None else segment.dates[place : place + stop - first]
    )
    truth, ours = (data.original(v, first)[:, variate] for v in both(task, first, stop))
    series.plot(steps, truth, color="black", linewidth=0.9, label="series")
    series.plot(steps, ours, color=MODEL, linewidth=0.9, label=f"{task.scoring} by the model")
    series.set_title(f"{title}: {segment.name}, {data.columns[variate]}", fontsize=9)
    series.tick_params(labelsize=7, labelbottom=False)
    below.plot(steps, task.scores[first:stop], color=SCORE, linewidth=0.9, label="score")
    below.axhline(task.threshold, color="0.4", linestyle="--", linewidth=0.9, label="threshold")
    below.set_ylim(bottom=0)
    below.tick_params(labelsize=7)
    if segment.dates is None:
        below.set_xlabel("step of the series", fontsize=8)
    else:
        locator = AutoDateLocator()
        below.xaxis.set_major_locator(locator)
        below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for panel in (series, below):
        panel.grid(alpha=0.3)
        if task.labels is not None:
            _shade(panel, task.labels[first:stop].numpy(), steps)


def around(task: "AnomalyDetection", event: Event) -> tuple[int, int]:
    """Test steps [first, stop) around an event, within its segment: as much again on both sides, at most LONGEST."""
    data = task.trainer.datamodule
    segment, place = data.segment_of(event.first)
    low, high = event.first - place, event.first - place + len(segment.test)
    margin = max(data.lookback, event.stop - event.first)
    first, stop = max(low, event.first - margin), min(high, event.stop + margin)
    if stop - first > LONGEST:
        first = max(first, min(event.peak - LONGEST // 2, stop - LONGEST))
        stop = min(stop, first + LONGEST)
    return first, stop


def both(task: "AnomalyDetection", first: int, stop: int) -> tuple[Tensor, Tensor]:
    """(T, N) scaled truth and model output of test steps [first, stop); NaN where no window makes one."""
    data = task.trainer.datamodule
    rows = data.test_rows[first:stop]
    low, high = int(rows[0]), int(rows[-1]) + 1
    targets = data.test.starts + data.length - data.horizon
    index = torch.nonzero((targets < high) & (targets + data.horizon > low)).flatten()
    ours = torch.full((len(data.test_values), data.test.variates), torch.nan)
    with torch.inference_mode():
        for chunk in index.split(data.batch_size):
            batch = {key: value.to(task.device) for key, value in data.test[chunk].items()}
            at = batch["rows"][:, None] + torch.arange(data.horizon, device=task.device)
            fresh = torch.arange(data.horizon, device=task.device) >= batch["covered"][:, None]
            ours[at[fresh].cpu()] = task.eval()(batch)[fresh].float().cpu()
    return data.test_values[rows], ours[rows]


def overview(task: "AnomalyDetection") -> "Figure":
    """The score of every test step (the highest of each pixel), on a log scale; labelled steps are shaded."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(10, 3.2), layout="constrained")
    scores = task.scores.numpy()
    width = max(1, -(-len(scores) // POINTS))
    starts = np.arange(0, len(scores), width)
    panel.plot(starts, np.maximum.reduceat(scores, starts), color=SCORE, linewidth=0.7, label="score")
    panel.axhline(task.threshold, color="0.3", linestyle="--", linewidth=1, label="threshold")
    if (scores > 0).any():
        panel.set_yscale("log")
    if task.labels is not None:
        _shade(panel, task.labels.numpy(), np.arange(len(scores)))
    data = task.trainer.datamodule
    for border in data.borders[1:]:
        panel.axvline(border, color="0.75", linewidth=0.5, zorder=0)
    between = ", grey lines between series" if len(data.borders) > 1 else ""
    panel.set(xlabel=f"test step{between}", ylabel="score", xlim=(0, len(scores)))
    panel.legend(*_once([panel]), fontsize=7, loc="upper left", ncols=3)
    return figure


def precision_recall(task: "AnomalyDetection") -> "Figure":
    """Precision against recall over all thresholds, for the model and its floors; a dot at the threshold in use."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
    share = float(task.labels.float().mean())
    highest = share
    lines = zip([("model", task.scores), *task.floor_scores.items()], (MODEL, *FLOORS), strict=False)
    for (name, scores), color in lines:
        precision, recall = (values[:-1] for values in curve(scores, task.labels))  # the last: no step flagged
        thinned = np.unique(np.linspace(0, len(recall) - 1, POINTS).astype(int))
        panel.plot(recall[thinned], precision[thinned], color=color, label=name.replace("_", " "))
        highest = max(highest, float(precision.max()))
    flags = task.scores > task.threshold
    hits = float((flags & task.labels).sum())
    panel.plot(
        hits / float(task.labels.sum()), hits / max(1, int(flags.sum())), "o", color=MODEL, label="at the threshold"
    )
    panel.axhline(share, color="0.4", linestyle=":", label=f"share of anomalous steps, {share:.3f}")
    panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, min(1.02, 1.1 * highest)))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    return figure


def _shade(panel: "Axes", labels: np.ndarray, steps: Any) -> None:
    for a, b in runs(labels):
        panel.axvspan(steps[a], steps[b - 1], color=TRUTH, alpha=0.25, linewidth=0.8, label="labelled anomalous")


def _once(panels: Any) -> tuple[list[Any], list[str]]:
    """Handles and labels of all panels, each label once."""
    found = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    return list(found.values()), list(found)

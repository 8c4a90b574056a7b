"""What a detector found, missed and made up, event by event."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.ts_anomaly.metrics import runs

if TYPE_CHECKING:
    from tasks.ts_anomaly.task import AnomalyDetection

ROWS = 100


@dataclass(frozen=True)
class Event:
    """Test steps [first, stop); kind: found, missed, false alarm, or flagged where there are no labels; its highest
    score stands at step `peak`."""

    kind: str
    first: int
    stop: int
    peak: int
    score: float


def events(task: "AnomalyDetection") -> list[Event]:
    """Every labelled event and every run of flagged steps that touches none, the highest scores first."""
    scores, borders = task.scores.numpy(), task.trainer.datamodule.borders
    flags = scores > task.threshold
    if task.labels is None:
        spans = [("flagged", a, b) for a, b in runs(flags, borders)]
    else:
        labels = task.labels.numpy()
        spans = [("found" if flags[a:b].any() else "missed", a, b) for a, b in runs(labels, borders)]
        spans += [("false alarm", a, b) for a, b in runs(flags, borders) if not labels[a:b].any()]
    found = []
    for kind, a, b in spans:
        peak = a + int(np.argmax(scores[a:b]))
        found.append(Event(kind, a, b, peak, float(scores[peak])))
    return sorted(found, key=lambda e: -e.score)


def table(task: "AnomalyDetection") -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: labelled events first, then flagged runs, at most `ROWS`."""
    data = task.trainer.datamodule
    columns = ["what", "series", "first", "last", "steps", "highest score", "over threshold", "variate"]
    rows = []
    for event in sorted(events(task), key=lambda e: e.kind == "false alarm")[:ROWS]:
        segment, place = data.segment_of(event.first)
        ends = [data.date(step) for step in (event.first, event.stop - 1)]
        first, last = (place, place + event.stop - event.first - 1) if ends[0] is None else map(str, ends)
        variate = data.columns[int(task.worst[event.peak])]
        over = event.score / task.threshold if task.threshold else float("inf")
        rows.append([event.kind, segment.name, first, last, event.stop - event.first, event.score, over, variate])
    return columns, rows

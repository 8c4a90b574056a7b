"""How well scores find labelled anomalies, by measures that agree and by one that flatters.

- by score alone: average precision, area under ROC, and the best F1 over all thresholds (an oracle: it sees labels)
- at a fixed threshold: step-wise F1, event-wise F1 (Hundman et al. 2018, arXiv 1802.04431, sec. 4.2), range-based
  precision and recall (Tatbul et al. 2018, arXiv 1803.03639)
- volume under the surface (Paparrizos et al., PVLDB 15(11), 2022): ROC and PR with soft borders around events
- point-adjusted F1: a whole event counts as found once any of its steps is flagged, which lifts a random score to the
  top (Kim et al. 2022, arXiv 2109.05257). Inflated; here because published tables use it.

Range-based and volume metrics are those of aeon, an optional package.
Shapes: R steps.
"""

import logging
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
)

log = logging.getLogger(__name__)

BUFFERS = 11
"""Widths of the soft border between 0 and its maximum over which the volume is averaged."""


def runs(flags: np.ndarray, borders: np.ndarray | None = None) -> list[tuple[int, int]]:
    """(R,) bool -> [first, stop) of each run of True; none reaches across a border (the first row of a segment)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    cuts = np.zeros(0, dtype=int) if borders is None else np.asarray(borders)
    found = []
    for first, stop in edges.reshape(-1, 2).tolist():
        inside = cuts[(cuts > first) & (cuts < stop)].tolist()
        found += zip([first, *inside], [*inside, stop], strict=True)
    return found


def ranks(scores: Tensor) -> Tensor:
    """(R,) float64 in [0, 1] in the same order, ties kept: torchmetrics takes other scores for logits."""
    values, place = torch.unique(scores, return_inverse=True)
    return place.double() / max(1, len(values) - 1)


def f1(found: float, missed: float, wrong: float) -> float:
    """2 TP / (2 TP + FN + FP); 0 where nothing is found."""
    return 2 * found / (2 * found + missed + wrong) if found else 0.0


def step_f1(flags: np.ndarray, labels: np.ndarray) -> float:
    """F1 over steps."""
    return f1((flags & labels).sum(), (~flags & labels).sum(), (flags & ~labels).sum())


def event_f1(flags: np.ndarray, labels: np.ndarray, borders: np.ndarray) -> float:
    """F1 over events: an event with a flagged step is found, one without is missed, and every run of flagged steps that
    touches no event is wrong."""
    events = runs(labels, borders)
    found = sum(flags[a:b].any() for a, b in events)
    wrong = sum(not labels[a:b].any() for a, b in runs(flags, borders))
    return f1(found, len(events) - found, wrong)


def point_adjusted_f1(flags: np.ndarray, labels: np.ndarray, borders: np.ndarray) -> float:
    """Step-wise F1 after every step of an event counts as flagged if any of them is. Inflated."""
    adjusted = flags.copy()
    for a, b in runs(labels, borders):
        adjusted[a:b] = flags[a:b].any()
    return step_f1(adjusted, labels)


def curve(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall at every threshold, from all steps flagged to none."""
    precision, recall, _ = binary_precision_recall_curve(ranks(scores), labels.long())
    return precision, recall


def measure(scores: Tensor, labels: Tensor, threshold: float, borders: np.ndarray, buffer: int) -> dict[str, float]:
    """Every metric by name; `scores` and `labels` (R,), both kinds of label present.

    threshold: steps above it are flagged. borders: first step of each segment. buffer: the widest soft border of the
    volume metrics, in steps.
    """
    order, truth = ranks(scores), labels.long()
    precision, recall = curve(scores, labels)
    flags, marked = (scores > threshold).numpy(), labels.numpy()
    hits = (flags & marked).sum()
    found = {
        "auc_pr": binary_average_precision(order, truth),
        "auc_roc": binary_auroc(order, truth),
        "best_f1": (2 * precision * recall / (precision + recall).clamp_min(1e-12)).max(),
        "f1": step_f1(flags, marked),
        "precision": hits / max(1, flags.sum()),
        "recall": hits / marked.sum(),
        "event_f1": event_f1(flags, marked, borders),
        **(by_aeon(order.numpy(), flags, truth.numpy(), buffer) if find_spec("aeon") else {}),
        "point_adjusted_f1": point_adjusted_f1(flags, marked, borders),
    }
    return {name: float(value) for name, value in found.items()}


def by_aeon(scores: np.ndarray, flags: np.ndarray, labels: np.ndarray, buffer: int) -> dict[str, float]:
    """Range-based precision, recall and F1 (flat bias, no reward for mere existence), VUS-ROC and VUS-PR.

    aeon's own volume scores go through every buffer width, which takes minutes; these average `BUFFERS` widths from 0
    to `buffer`. Borders between segments are unknown to it.
    """
    from aeon.benchmarking.metrics import anomaly_detection as aeon

    widths = np.unique(np.linspace(0, buffer, BUFFERS).round().astype(int))
    areas = [aeon.range_pr_roc_auc_support(labels, scores, int(w), skip_check=True) for w in widths]
    pr, roc = np.mean(areas, axis=0)
    ranges = dict.fromkeys(("range_precision", "range_recall", "range_f1"), 0.0)
    if flags.any() and not flags.all():
        precision, recall = (f(labels, flags.astype(int)) for f in (aeon.range_precision, aeon.range_recall))
        total = precision + recall
        ranges = dict(zip(ranges, (precision, recall, 2 * precision * recall / total if total else 0.0), strict=True))
    return ranges | {"vus_roc": roc, "vus_pr": pr}


def say_what_is_left_out() -> None:
    """One line where the range-based and volume metrics are missing."""
    if find_spec("aeon") is None:
        log.warning("no range-based metrics and volumes under the surface without aeon: pip install aeon")

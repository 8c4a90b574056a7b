"""Shapelets: subsequences of training series that tell a class from the rest, found as ShapeFormer finds them.

Candidates lie between perceptually important points; each is scored by what its distance to the training series, near
its own place, tells about its class (ShapeFormer, Le et al. 2024, arXiv 2405.14608, sec. 4.1).
Shapes: M training series, L steps, N variates, C classes, S candidates.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import subsequence_match
from models import checks

logger = logging.getLogger(__name__)

SHORTEST = 3  # steps of a shapelet, at least
SCORES = 2**23  # distances in memory at a time


@dataclass(frozen=True)
class Shapelet:
    """Steps `start` to `end` - 1 of one variate of a training series.

    Args:
        case: the index of the series among those that discovery saw.
        variate: which of its variates.
        start: the first step.
        end: one past the last step.
        label: the class it stands for.
        gain: what its distance tells about that class, in bits.
    """

    case: int
    variate: int
    start: int
    end: int
    label: int
    gain: float


def information_gain(distances: Tensor, positives: Tensor, splits: str = "all") -> Tensor:
    """What the best threshold on a distance tells about a class, in bits: (S, M) -> (S,) in float32.

        max over k of H(P / M) - k / M H(p / k) - (M - k) / M H((P - p) / (M - k)),    H the entropy of a yes or no

    with p of the P positives among the k nearest series. positives: boolean, (S, M) or (M,). Series at the same
    distance stay together; inf is the largest distance. splits: `all` of them, or only those (`quintiles`) with the
    nearest series that hold 20, 40, 60, 80 or 100 % of the positives, as the code of ShapeFormer has it.
    """
    checks.choice("ig_splits", splits, ("all", "quintiles"))
    if distances.dim() != 2 or positives.dtype != torch.bool or positives.shape[-1] != distances.shape[1]:
        raise ValueError(
            f"distances {tuple(distances.shape)} and positives {tuple(positives.shape)} of {positives.dtype} do not"
            " fit: expected (S, M) and booleans (S, M) or (M,)"
        )
    M = distances.shape[1]
    near, order = distances.sort(1)
    hits = positives.expand_as(distances).gather(1, order).cumsum(1)  # p of the k nearest, k = 1 to M
    gains = _gains(hits)
    if splits == "all":
        gains[:, :-1].masked_fill_(near[:, 1:] == near[:, :-1], 0.0)
        return gains.amax(1)
    wanted = (hits[:, -1:] * torch.arange(1, 6, device=hits.device) + 4) // 5  # rounded up
    threshold = near.gather(1, torch.searchsorted(hits, wanted).clamp(max=M - 1))
    return gains.gather(1, torch.searchsorted(near, threshold, right=True) - 1).amax(1)


def _gains(hits: Tensor) -> Tensor:
    """The gain of every split: (S, M) counts p of the k = 1 to M nearest -> (S, M) bits, 0 for k = M.

    n H(p / n) = n log n - p log p - (n - p) log(n - p), of which there are M + 1 values.
    """
    M = hits.shape[1]
    n = torch.arange(M + 1, device=hits.device, dtype=torch.float64)
    table = torch.special.xlogy(n, n).div(torch.log(torch.tensor(2.0))).float()

    def bits(all_: Tensor, yes: Tensor) -> Tensor:
        return table[all_] - table[yes] - table[all_ - yes]

    k, P = torch.arange(1, M + 1, device=hits.device), hits[:, -1:]
    whole = bits(torch.full_like(P, M), P)
    return (whole - bits(k, hits) - bits(M - k, P - hits)).div_(M).clamp_(min=0.0)


def discover(
    x_MLN: Tensor,
    lengths_M: Tensor,
    labels_M: Tensor,
    *,
    source: str,
    window: int,
    per_class: int,
    pips: float,
    ig_splits: str,
    candidate_cases: int | None,
    seed: int,
) -> list[Shapelet]:
    """The shapelets of a training set, the most telling first: at most `per_class` of each class.

    source: `discovered`, the candidates of the highest gain that do not overlap in their variate, or `random`, spans
    at random places that are as long as candidates are. window: steps that a match may lie from the shapelet's own
    place. pips: points per step, at least 5 a series. candidate_cases: series of a class that candidates are taken
    from, drawn at random where there are more; None is all. Every candidate is scored on all M series.
    """
    _check_series(x_MLN, lengths_M, labels_M)
    rng = torch.Generator().manual_seed(seed)
    cases = _drawn_cases(labels_M, candidate_cases, rng)
    spans = candidates(x_MLN[cases], lengths_M[cases], pips)
    spans[:, 0] = cases[spans[:, 0]]
    if not len(spans):
        raise ValueError(
            f"the training series have no candidate of {SHORTEST} steps: the longest has {int(lengths_M.max())}; take"
            " model.module=generic"
        )
    if source == "random":
        spans = _moved(spans, lengths_M, labels_M, per_class, x_MLN.shape[2], rng)
    gains = score(x_MLN, lengths_M, labels_M, spans, window, ig_splits)
    chosen = _select(spans, gains, labels_M, per_class)
    logger.info(f"{len(chosen)} shapelets of {len(spans)} candidates in {len(cases)} of {len(x_MLN)} series")
    rows = zip(spans[chosen].tolist(), labels_M[spans[chosen, 0]].tolist(), gains[chosen].tolist(), strict=True)
    return [Shapelet(*span, label, gain) for span, label, gain in rows]


def _check_series(x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor) -> None:
    counts = labels_M.bincount()
    if few := [str(c) for c, count in enumerate(counts.tolist()) if count < 2]:
        raise ValueError(
            f"shapelets need at least two training series of a class: class {', '.join(few)} has fewer; leave it out,"
            " gather more, or take model.module=generic"
        )
    inside = torch.arange(x_MLN.shape[1]) < lengths_M[:, None]
    if len(wrong := (inside[..., None] & ~x_MLN.isfinite()).nonzero()):
        case, step, variate = wrong[0].tolist()
        raise ValueError(
            f"the training series have {len(wrong)} values that are no numbers, the first in case {case}, variate"
            f" {variate}, step {step}: fill or drop them"
        )


def _drawn_cases(labels_M: Tensor, most: int | None, rng: torch.Generator) -> Tensor:
    """The series that candidates are taken from, rising: at most `most` of each class."""
    order = torch.randperm(len(labels_M), generator=rng)
    if most is None:
        return torch.arange(len(labels_M))
    of_class = [order[labels_M[order] == label][:most] for label in labels_M.unique()]
    return torch.cat(of_class).sort().values


def candidates(x_MLN: Tensor, lengths_M: Tensor, pips: float) -> Tensor:
    """Spans of three consecutive important points: (S, 4) rows of case, variate, start, end (exclusive), rising.

    Points of a series of n steps: first 0 and n - 1, then max(5, int(pips n)) - 2 times the step that lies farthest
    from the line through the points beside it, with time in units of its standard deviation. After each the (at most
    three) spans from one point to the next but one that hold the new point become candidates, if they have 3 steps.
    """
    M, L, N = x_MLN.shape
    x, n = x_MLN.transpose(1, 2).reshape(M * N, L), lengths_M.clamp(min=1).repeat_interleave(N)
    points = _Points(x, n)
    wanted = (pips * n).long().clamp(min=5) - 2
    found = [points.insert(wanted > step) for step in range(int(wanted.max()))]
    rows, starts, ends = torch.cat(found, 1)
    keys = ((rows * L + starts) * (L + 1) + ends)[ends - starts >= SHORTEST].unique()
    rows, starts, ends = keys // (L + 1) // L, keys // (L + 1) % L, keys % (L + 1)
    return torch.stack((rows // N, rows % N, starts, ends), 1)


class _Points:
    """The important points of many series at once, linked to their neighbours: x (R, T), lengths n (R,)."""

    def __init__(self, x: Tensor, n: Tensor):
        self.x, self.n, steps = x, n, torch.arange(x.shape[1]).expand(x.shape)
        self.rows, self.last = torch.arange(len(x)), (n - 1)[:, None]
        self.unit = ((n.double().square() - 1) / 12).sqrt().clamp(min=1e-9).to(x.dtype)[:, None]  # of time
        self.taken = (steps == 0) | (steps >= self.last)  # points, and what lies beyond the series
        self.left, self.right = torch.zeros_like(steps).clone(), self.last.expand(x.shape).clone()  # of every step
        self.before = torch.where(steps == self.last, 0, -1)  # the point before a point, -1 where there is none
        self.after = torch.where(steps == 0, self.last, -1)
        self.after[n == 1], self.before[n == 1] = -1, -1

    def insert(self, asked: Tensor) -> Tensor:
        """Adds a point to the series `asked` for, as long as they have steps; the new spans (3, S): row, start, end."""
        distance, point = self._distances().masked_fill_(self.taken, -1.0).max(1)
        rows = self.rows[asked & (distance >= 0)]
        p = point[rows]
        a, b = self.left[rows, p], self.right[rows, p]
        steps = torch.arange(self.x.shape[1])
        inside = (steps > a[:, None]) & (steps < b[:, None])
        self.left[rows] = torch.where(inside & (steps > p[:, None]), p[:, None], self.left[rows])
        self.right[rows] = torch.where(inside & (steps < p[:, None]), p[:, None], self.right[rows])
        self.taken[rows, p] = True
        self.before[rows, p], self.after[rows, p], self.after[rows, a], self.before[rows, b] = a, b, p, p
        start = torch.cat((p, a, self.before[rows, a]))
        end = torch.cat((self.after[rows, b], b, p))
        spans = torch.stack((rows.repeat(3), start, end))
        return spans[:, (start >= 0) & (end >= 0)]

    def _distances(self) -> Tensor:
        """Of every step to the line through the points on its left and right."""
        y_left, y_right = self.x.gather(1, self.left), self.x.gather(1, self.right)
        run, rise = (self.right - self.left) / self.unit, y_right - y_left
        t = (torch.arange(self.x.shape[1]) - self.left) / self.unit
        return (rise * t - run * (self.x - y_left)).abs_() / (run.square() + rise.square()).sqrt_().clamp_(min=1e-12)


def _moved(
    spans: Tensor, lengths_M: Tensor, labels_M: Tensor, per_class: int, variates: int, rng: torch.Generator
) -> Tensor:
    """Spans at random places of a class's series, `per_class` each, as long as candidates of it: rows like theirs."""
    drawn = []
    for label in labels_M.unique():
        own = spans[labels_M[spans[:, 0]] == label]
        own = own[torch.randperm(len(own), generator=rng)[:per_class]]
        case, steps = own[:, 0], own[:, 3] - own[:, 2]
        start = (torch.rand(len(own), generator=rng) * (lengths_M[case] - steps + 1)).long()
        drawn.append(torch.stack((case, torch.randint(variates, case.shape, generator=rng), start, start + steps), 1))
    return torch.cat(drawn)


def match_spans(spans: Tensor, window: int, steps: int) -> Tensor:
    """Spans (S, 4) of case, variate, start, end as `subsequence_match` takes them: a match lies in the window

    [max(0, start - window), min(steps, end + window)).
    """
    _, variate, start, end = spans.unbind(1)
    length = end - start
    return torch.stack(
        (length, variate, (start - window).clamp(min=0), (end + window).clamp(max=steps) - length + 1), 1
    )


def score(
    x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor, spans: Tensor, window: int, ig_splits: str = "all"
) -> Tensor:
    """The information gain in bits of candidates (S, 4) of case, variate, start, end about the class of their case.

    Distances are complexity-invariant, the least within the window.
    """
    gains = x_MLN.new_zeros(len(spans))
    length = spans[:, 3] - spans[:, 2]
    order = (length * x_MLN.shape[2] + spans[:, 1]).argsort(stable=True)  # patterns that are matched together
    for some in order.split(max(1, SCORES // max(x_MLN.shape[:2]))):
        case, variate, start, _ = spans[some].unbind(1)
        steps = (start[:, None] + torch.arange(int(length[some].max()))).clamp(max=x_MLN.shape[1] - 1)
        values = x_MLN[case[:, None], steps, variate[:, None]]
        near = match_spans(spans[some], window, x_MLN.shape[1])
        distances, _ = subsequence_match(x_MLN, values, near, lengths=lengths_M, complexity=True)
        gains[some] = information_gain(distances.mT.contiguous(), labels_M[case][:, None] == labels_M, ig_splits)
    return gains


def _select(spans: Tensor, gains: Tensor, labels_M: Tensor, per_class: int) -> Tensor:
    """Indices of the chosen candidates by falling gain: per class the best that do not overlap, then the next best."""
    chosen = []
    for label in labels_M.unique().tolist():
        own = (labels_M[spans[:, 0]] == label).nonzero()[:, 0]
        own = own[gains[own].argsort(descending=True, stable=True)]
        if len(own) < per_class:
            logger.warning(f"class {label} has {len(own)} candidates for {per_class} shapelets: taking them all")
        _, variate, start, end = spans[own].unbind(1)
        free, best = torch.ones(len(own), dtype=torch.bool), []
        while len(best) < min(per_class, len(own)):
            if not free.any():  # all that is left overlaps
                rest = torch.ones_like(free).index_fill_(0, torch.tensor(best), False).nonzero()[:, 0].tolist()
                best += rest[: per_class - len(best)]
                break
            first = int(free.int().argmax())
            best.append(first)
            free &= (variate != variate[first]) | (end <= start[first]) | (start >= end[first])
        chosen.append(own[best])
    chosen = torch.cat(chosen)
    return chosen[gains[chosen].argsort(descending=True, stable=True)]

"""Value and shape tokens of a series, and what the labels say of them (VSFormer, arXiv 2412.16515).

Notable: the paper's formulas could not be had. Motifs by the matrix profile, interval statistics and a class prior are
its description; all that is fixed here beyond it (lengths, levels, information gain) is this project's definition.
Shapes: M training cases, B batch, L steps, N variates, C classes, S shape tokens, I intervals, G tokens.
"""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import matrix_profile, subsequence_match
from models.shapelets import information_gain

logger = logging.getLogger(__name__)

SHORTEST = 4
"""Steps of a prototype at least, and so of a case."""
FLAT = 1e-3
"""Deviation, in those of a standardised variate, below which a window has no shape."""
ALIKE = 0.03
"""Distances over the root of the length in steps of this count as equal: measured values are coarse, and many short
windows recur exactly. Among those the larger deviation wins, not the rounding error."""


class Motif(NamedTuple):
    """A subsequence that recurs in other series of its class: steps start to start + length - 1 of a training case."""

    case: int
    start: int
    length: int
    variate: int
    label: int


def check(x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor, classes: int) -> None:
    """ValueError where training cases (M, L, N), zero after their lengths, have nothing to learn from."""
    if labels_M.is_floating_point() or not ((labels_M >= 0) & (labels_M < classes)).all():
        shown = ", ".join(str(value) for value in labels_M.unique().tolist()[:8])
        raise ValueError(f"labels {shown} must be whole numbers from 0 to {classes - 1}, one for each class")
    bad = (~x_MLN.isfinite()).any(1).nonzero()
    if len(bad):
        case, variate = bad[0].tolist()
        raise ValueError(f"case {case}, variate {variate} has a value that is not finite: mend it or leave it out")
    if (lengths_M < SHORTEST).any():
        case = int(lengths_M.argmin())
        raise ValueError(f"case {case} has {int(lengths_M[case])} steps, at least {SHORTEST} are needed: leave it out")


def find_motifs(
    x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor, classes: int, sizes: tuple[int, ...], count: int
) -> list[Motif]:
    """The `count` best motifs of every class and variate, in the order (class, variate, rank): C N count of them.

    Windows of all `sizes` (steps, rising) compete by the distance to their nearest neighbour in another series of the
    class, both z-normalised, over the square root of their length, and where that is ALIKE by their deviation. Those
    that overlap a better one of the same series, or are flat, are taken only where no others are left. In a class with
    a single series nothing can recur: there the windows of the largest deviation are taken, and a warning says so.

    Raises:
        ValueError: a class without a training series, or with fewer windows than `count`.
    """
    found = []
    for label in range(classes):
        cases = (labels_M == label).nonzero().flatten()
        usable = int((lengths_M[cases] >= sizes[0]).sum())
        if not usable:
            why = f"{len(cases)} training series, none of at least {sizes[0]} steps"
            raise ValueError(f"class {label} has {why}: leave the class out, or give training cases of it")
        if usable < 2:
            logger.warning(f"class {label} has one training series: no motif recurs, its widest windows stand in")
        scores_NW, windows = _rated(x_MLN[cases], lengths_M[cases], sizes)
        if len(windows) < count:
            raise ValueError(f"motifs={count} is more than the {len(windows)} windows of class {label}: choose fewer")
        for variate, scores_W in enumerate(scores_NW):
            for at in _best(scores_W, windows, count):
                case, start, length = windows[at]
                found.append(Motif(int(cases[case]), start, length, variate, label))
    return found


def _rated(x_MLN: Tensor, lengths_M: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Scores (N, windows), lower is better, and (case, start, length) of every window of one class.

    A score is the distance in steps of ALIKE, less a part of a step that rises with the deviation; inf for flat ones.
    """
    distances, spreads, windows = [], [], []
    for size in sizes:
        starts = torch.arange(max(0, x_MLN.shape[1] - size + 1))
        inside = starts + size <= lengths_M[:, None]
        if not inside.any():
            continue
        values_NWl = x_MLN.unfold(1, size, 1)[inside].transpose(0, 1)
        case, start = inside.nonzero().unbind(1)
        spread = values_NWl.std(-1, correction=0)
        profile = matrix_profile(values_NWl, case)[0] / size**0.5
        distances.append((profile / ALIKE).floor().masked_fill(spread < FLAT, torch.inf))
        spreads.append(spread)
        windows += [(c, s, size) for c, s in zip(case.tolist(), start.tolist(), strict=True)]
    distances, spreads = torch.cat(distances, 1), torch.cat(spreads, 1)
    nothing = distances.isinf().all(1, keepdim=True)
    return distances.masked_fill(nothing, 0.0) - spreads / (1 + spreads), windows


def _best(scores_W: Tensor, windows: list[tuple[int, int, int]], count: int) -> list[int]:
    """The best `count` windows of which no two overlap in one series; where those run out, the best of the rest."""
    chosen, passed = [], []
    for at in scores_W.argsort(stable=True).tolist():
        case, start, length = windows[at]
        overlaps = any(
            case == other and start < begin + size and begin < start + length
            for other, begin, size in (windows[i] for i in chosen)
        )
        (passed if overlaps or scores_W[at] == torch.inf else chosen).append(at)
        if len(chosen) == count:
            break
    return (chosen + passed)[:count]


def best_matches(x_BLN: Tensor, lengths_B: Tensor | None, values_SW: Tensor, spans: Tensor) -> tuple[Tensor, ...]:
    """Where each prototype fits best: (matches (B, S, W), spans (B, S, 2) in steps, distances (B, S)), no gradient.

    A match is the series' own subsequence, zeros after the prototype's length; its distance is the mean squared one
    over the length. spans: as in kernels.subsequence_match. A series shorter than a prototype is its own match, at
    distance inf.
    """
    distances, offsets = subsequence_match(x_BLN, values_SW, spans, lengths=lengths_B)
    B, L, _ = x_BLN.shape
    W = values_SW.shape[1]
    length, variate = spans[:, 0].to(x_BLN.device), spans[:, 1].to(x_BLN.device)
    start = offsets.clamp(min=0)
    stop = start + length
    stop = stop.clamp(max=L) if lengths_B is None else torch.minimum(stop, lengths_B[:, None])
    steps = start[..., None] + torch.arange(W, device=x_BLN.device)
    rows = torch.arange(B, device=x_BLN.device)[:, None, None]
    matches = x_BLN.detach()[rows, steps.clamp(max=L - 1), variate[:, None]]
    return matches * (steps < stop[..., None]), torch.stack((start, stop), -1), distances


def intervals(lengths_B: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Every series cut into 1, 2, 4, ... (`levels`) parts: first step and the one after the last, (B, I, 2)."""
    parts = torch.cat([torch.arange(level, device=lengths_B.device) for level in levels])
    of = torch.cat([torch.full((level,), level, device=lengths_B.device) for level in levels])
    return torch.stack((parts * lengths_B[:, None] // of, (parts + 1) * lengths_B[:, None] // of), -1)


def interval_statistics(x_BLN: Tensor, spans_BI: Tensor) -> Tensor:
    """Mean, deviation and least-squares slope of every interval, (B, N I, 3), variate by variate, no gradient.

    spans_BI: (B, I, 2), or (1, I, 2) for all. The deviation is the population's, the slope the rise over the whole
    interval: 0 where it has a single step.
    """
    x_BLN = x_BLN.detach()
    step = torch.arange(x_BLN.shape[1], device=x_BLN.device)
    start, stop = spans_BI[..., :1], spans_BI[..., 1:]
    inside = ((step >= start) & (step < stop)).to(x_BLN.dtype)
    share = inside / inside.sum(-1, keepdim=True)
    mean = share @ x_BLN
    deviation = (share @ x_BLN.square() - mean.square()).clamp(min=0).sqrt()
    u = inside * (step - (start + stop - 1) / 2) / (stop - start - 1).clamp(min=1)
    slope = u @ x_BLN / u.square().sum(-1, keepdim=True).clamp(min=1e-6)
    return torch.stack((mean, deviation, slope), -1).transpose(1, 2).flatten(1, 2)


def shape_prior(distances_MS: Tensor, labels_M: Tensor, of_S: Tensor, classes: int) -> Tensor:
    """(S, C): for each prototype its gain in bits for its own class `of_S`, 0 for the others."""
    positives_SM = labels_M == of_S[:, None]
    gain = information_gain(distances_MS.T, positives_SM)
    return gain.new_zeros(len(of_S), classes).scatter_(1, of_S[:, None], gain[:, None])


def value_prior(statistics_MG: Tensor, labels_M: Tensor, classes: int) -> Tensor:
    """(G, C): for each token (M, G, 3) and class against the rest, the gain in bits of mean or deviation."""
    columns = []
    for label in range(classes):
        positives_M = labels_M == label
        gains = [information_gain(part.T, positives_M) for part in statistics_MG[..., :2].unbind(-1)]
        columns.append(torch.maximum(*gains))
    return torch.stack(columns, 1)


def scaled_prior(prior_GC: Tensor, kind: str) -> Tensor:
    """A block of the prior over its own maximum; zeros, with a warning, where the labels say nothing of its tokens."""
    top = prior_GC.max() if prior_GC.numel() else prior_GC.new_zeros(())
    if not top > 0:
        logger.warning(f"no {kind} token tells the classes apart in training: for them prior=none would be the same")
        return torch.zeros_like(prior_GC)
    return prior_GC / top

"""Shapelets: subsequences of training series that tell a class from the rest (Ye and Keogh 2009).

Shapes: S candidates, M training series.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models import checks


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

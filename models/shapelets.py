"""Shapelets: subsequences of training series that tell a class from the rest."""

from dataclasses import dataclass


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

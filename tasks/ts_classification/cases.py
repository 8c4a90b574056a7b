"""Labelled series in memory, as every reader gives them.

Shapes: M cases, L steps of the longest one, N variates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Cases:
    """values (M, L, N) float32, 0 after a case's end; lengths (M,) int64; labels: M class names, None where there are
    none; classes: the class names in the file's order; variates: N names; names: what the M cases are called in
    messages; file: where they stand."""

    values: np.ndarray
    lengths: np.ndarray
    labels: list[str] | None
    classes: list[str]
    variates: list[str]
    names: list[str]
    file: str

    def __len__(self) -> int:
        return len(self.values)


def checked(
    values_MLN: np.ndarray,
    labels: Sequence[str] | None,
    file: str,
    lengths: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    variates: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Cases:
    """Cases of an array that is NaN after a case's end (`lengths`, where given, say where that is).

    Raises ValueError: there is no case, a case is empty, a value inside one is missing or infinite, a label is missing.
    """
    names = list(names) if names is not None else [str(i + 1) for i in range(len(values_MLN))]
    if not values_MLN.size:
        raise ValueError(f"{file} holds no cases (shape {values_MLN.shape})")
    variates = list(variates) if variates is not None else [f"v{i + 1}" for i in range(values_MLN.shape[2])]
    present = ~np.isnan(values_MLN)
    steps = np.arange(1, values_MLN.shape[1] + 1)
    if lengths is None:
        lengths = (present.any(2) * steps).max(1)
    if (lengths < 1).any():
        raise ValueError(f"{file}: case {names[int(np.argmax(lengths < 1))]} has no values")
    inside = steps <= lengths[:, None]
    values = np.where(inside[:, :, None], values_MLN, 0).astype(np.float32)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        m, step, variate = wrong[0]
        what = "is missing" if np.isnan(values[m, step, variate]) else "is infinite or too large"
        raise ValueError(
            f"{file}: case {names[m]}, channel {variates[variate]}, index {step} (from 0): the value {what}"
            f" ({len(wrong)} such values): fill it in, or leave the case out"
        )
    if labels is not None:
        labels = [str(label) for label in labels]
        if "" in labels:
            raise ValueError(f"{file}: case {names[labels.index('')]} has no label ({labels.count('')} such cases)")
    found = in_order(labels or ()) if classes is None else [str(name) for name in classes]
    return Cases(values, lengths.astype(np.int64), labels, found, variates, names, file)


def from_list(series: Sequence[np.ndarray], variates: int) -> np.ndarray:
    """(M, L, N) float64 of M series (N, L_m), NaN after the end of each."""
    values = np.full((len(series), max((one.shape[1] for one in series), default=0), variates), np.nan)
    for row, one in zip(values, series, strict=True):
        row[: one.shape[1]] = one.T
    return values


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct class names: by value where all are numbers, else alphabetically."""
    names = set(names)
    try:
        return sorted(names, key=lambda name: (float(name), name))
    except ValueError:
        return sorted(names)


def select(cases: Cases, index: np.ndarray) -> Cases:
    """The cases of these positions."""
    return replace(
        cases,
        values=cases.values[index],
        lengths=cases.lengths[index],
        labels=None if cases.labels is None else [cases.labels[i] for i in index],
        names=[cases.names[i] for i in index],
    )


def lengthened(cases: Cases, length: int) -> np.ndarray:
    """(M, length, N): the values with zeros after their last step."""
    return np.pad(cases.values, ((0, 0), (0, length - cases.values.shape[1]), (0, 0)))

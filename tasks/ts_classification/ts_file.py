"""Reads the `.ts` format of the time-series classification archives into Cases.

Notable: written here since aeon's loader folds class names to lower case, stops at an empty line and names no line in
its errors; the two give the same numbers (tests).

    @problemName BasicMotions          # lines with @ are settings, with # comments
    @classLabel true Standing Walking  # the class names in their order; false: the cases have no labels
    @data
    1.5,2.5,?:0.1,0.2,0.3:Walking      # a case a line: variates, then its label; ? or NaN after its end
"""

import numpy as np

from tasks.ts_classification.cases import Cases, checked, from_list

Settings = dict[str, str]


def read(text: str, file: str) -> Cases:
    """The cases of a `.ts` file's text. Raises ValueError: file, line and what is wrong there."""
    settings, rows = _parts(text, file)
    labelled, *classes = settings.get("classlabel", "false").split() or ["false"]
    labelled = labelled.lower() == "true"
    series, labels = [], []
    for number, line in rows:
        *variates, last = line.split(":") if labelled else (*line.split(":"), None)
        if not variates:
            raise ValueError(f"{file}: line {number} has no label: write value,value,...:label")
        if series and len(variates) != len(series[0]):
            raise ValueError(f"{file}: line {number} has {len(variates)} variates, the first case has {len(series[0])}")
        series.append(_numbers(variates, file, number))
        labels.append(last and last.strip())
        if classes and labels[-1] not in classes:
            raise ValueError(f"{file}: line {number}: label {labels[-1]!r} is not in @classLabel: {', '.join(classes)}")
    if not series:
        raise ValueError(f"{file} holds no cases after @data")
    values = from_list(series, len(series[0]))
    return checked(values, labels if labelled else None, file, classes=classes or None)


def _parts(text: str, file: str) -> tuple[Settings, list[tuple[int, str]]]:
    """The settings (lower-case names) and the numbered lines of the cases."""
    settings: Settings = {}
    lines = iter(enumerate(text.splitlines(), start=1))
    for _, line in lines:
        key, _, value = line.strip().partition(" ")
        if key.lower() == "@data":
            break
        if key.startswith("@"):
            settings[key[1:].lower()] = value.strip()
    else:
        raise ValueError(f"{file} has no line @data: not a .ts file")
    if settings.get("timestamps", "").lower() == "true":
        raise ValueError(f"{file}: @timestamps true is not read: leave the time stamps out, or give a long CSV")
    if settings.get("targetlabel", "").lower() == "true":
        raise ValueError(f"{file}: @targetLabel true: its labels are numbers to regress on, not classes")
    return settings, [(n, line.strip()) for n, line in lines if line.strip() and not line.lstrip().startswith("#")]


def _numbers(variates: list[str], file: str, number: int) -> np.ndarray:
    """(N, L) float64 of one case; a variate that is shorter than the others ends in NaN."""
    rows = []
    for position, text in enumerate(variates, start=1):
        try:
            rows.append(np.array(text.replace("?", "nan").split(","), dtype=np.float64))
        except ValueError as error:
            raise ValueError(f"{file}: line {number}, variate {position}: {error}") from None
    case = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(case, rows, strict=True):
        row[: len(values)] = values
    return case

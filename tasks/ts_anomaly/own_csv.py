"""A user's CSV with an optional column of labels.

Shapes: R rows, N variates.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.ts_anomaly.recording import Recording, Segment, as_labels, divide
from tasks.ts_forecast import table
from tasks.ts_forecast.series import Series, check_dates, fill, nearest, regular, warn_sentinels

log = logging.getLogger(__name__)

LABEL_NAMES = ("label", "labels", "anomaly", "is_anomaly")


def read_csv(
    path: Path, data: Mapping[str, Any], dates: str | None, labels: str | None = None, as_it_is: bool = False
) -> tuple[Series, np.ndarray | None]:
    """The variates of a CSV file, checked and filled (`data.columns`, `frequency`, `missing`), and its labels.

    dates: the date column, `auto` or None. labels: the label column, `auto` (one of `LABEL_NAMES`, if there is one) or
    None. A step that only the grid of `data.frequency` adds is not anomalous. as_it_is: a published file, whose dates
    may repeat. Raises ValueError.
    """
    series = table.read(path, None, dates)
    series = series if as_it_is else check_dates(series)
    name = _label_column(series, labels)
    columns = data.get("columns")
    kept = [str(c) for c in (series.columns if columns is None else columns) if c != name]
    for column in kept:
        if column not in series.columns:
            raise ValueError(f"{path}: no column {column!r} (data.columns); {nearest(column, series.columns)}")
    truth = None
    if name is not None:
        truth = series.values[:, series.columns.index(name)]
        as_labels(truth, len(truth), f"{path}, column {name!r}")
    if not kept:
        raise ValueError(f"{path}: no column but the labels ({name!r}) holds numbers")
    order = [series.columns.index(c) for c in kept]
    # the labels ride along, so that rows which the rules add or drop are the same ones
    rider = np.zeros((len(series.values), 1)) if truth is None else truth[:, None]
    series = replace(series, values=np.hstack([series.values[:, order], rider]), columns=[*kept, "labels of this file"])
    series = regular(series, data.get("frequency"))
    rider = np.nan_to_num(series.values[:, -1:])
    series = fill(replace(series, values=np.hstack([series.values[:, :-1], rider])), data.get("missing", "error"))
    truth = None if truth is None else series.values[:, -1] == 1
    return warn_sentinels(replace(series, values=series.values[:, :-1], columns=kept)), truth


def read_own(path: Path, data: Mapping[str, Any]) -> Recording:
    """`data.path` divided by `data.train_share`, or scored whole where `data.train_path` names a file to train on."""
    series, labels = read_csv(path, data, data["date_column"], data["label_column"])
    if data["train_path"] is None:
        return Recording([divide(series, labels, data["train_share"], path.stem)], series.columns, str(path))
    train_path = Path(str(data["train_path"])).expanduser()
    if not train_path.is_file():
        raise FileNotFoundError(
            f"data.train_path={train_path} does not exist: looked in {train_path.parent.absolute()}"
        )
    train, _ = read_csv(train_path, data | {"columns": series.columns}, data["date_column"], data["label_column"])
    segment = Segment(path.stem, train.values, series.values, labels, series.dates)
    return Recording([segment], series.columns, str(path))


def _label_column(series: Series, wanted: str | None) -> str | None:
    if wanted == "auto":
        found = next((c for c in series.columns if c.lower() in LABEL_NAMES), None)
        if found is not None:
            log.info(
                "%s: column %r is taken for the labels (data.label_column=null: it is a variate)", series.file, found
            )
        return found
    if wanted is not None and wanted not in series.columns:
        raise ValueError(f"{series.file}: no column {wanted!r} (data.label_column); {nearest(wanted, series.columns)}")
    return wanted

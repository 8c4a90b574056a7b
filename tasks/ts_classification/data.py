"""Data of the classification of series: cases of one length in one tensor, scaled by the training part.

Notable: an official test part is never split anew; validation is a stratified share of training, by a seed of its own,
so that seeds of the model do not change it; the scale is that of the cases trained on, over their true steps.
Shapes: M cases, L steps of the longest one, N variates, C classes, B batch.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks import sources
from tasks.data import TaskData, at_least, choose
from tasks.ts_classification import readers
from tasks.ts_classification.cases import Cases, in_order, lengthened, select
from tasks.ts_classification.split import stratified

log = logging.getLogger(__name__)

SCALES = ("standard", "none")
COUNTED = ("length", "variates", "classes")


class CaseBatches:
    """`ds[index]` -> {"x": (B, L, N) float32, 0 after a case's end, "lengths": (B,) int64, "y": (B,) int64}."""

    def __init__(self, x: Tensor, lengths: Tensor, y: Tensor, names: list[str]):
        self.x, self.lengths, self.y, self.names = x, lengths, y, names

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        index = torch.as_tensor(index).reshape(-1)
        return {"x": self.x[index], "lengths": self.lengths[index], "y": self.y[index]}


class SeriesClasses(TaskData):
    """A DataModule of labelled series; see conf/data/_cases.yaml for every argument.

    After `setup`: train, val (None with validation=0) and test (CaseBatches); mean, std (N,) float64; class_names (C);
    variate_names (N). Raises ValueError / FileNotFoundError in one line: at construction for wrong arguments, in setup
    for wrong data.
    """

    def __init__(
        self,
        name: str,
        source: Mapping,
        length: int | None,
        variates: int | None,
        classes: int | None,
        cases: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        validation: float | str = 0.2,
        test_share: float = 0.3,
        split_seed: int = 0,
        scale: str = "standard",
        batch_size: int = 16,
        root: str | None = None,
        path: str | None = None,
        test_path: str | None = None,
        download: bool = True,
        layout: str = "auto",
        label_column: str = "label",
        case_column: str = "case",
        time_column: str = "time",
        seed: int = 0,
    ):
        super().__init__(batch_size, seed)
        for key, value in {"length": length, "variates": variates, "classes": classes}.items():
            if value is not None:
                at_least(f"data.{key}", value, 2 if key == "classes" else 1)
        _check_share("validation", validation, ("test",))
        _check_share("test_share", test_share)
        if test_share == 0:
            raise ValueError("data.test_share=0: give a share above 0, there must be cases to test on")
        choose("data.scale", scale, SCALES)
        self.name, self.length, self.variates, self.classes, self.cases = name, length, variates, classes, cases
        self.class_names = None if class_names is None else [str(one) for one in class_names]
        self.validation, self.test_share, self.split_seed, self.scale = validation, test_share, split_seed, scale
        self._reading = {
            "name": name,
            "source": source,
            "root": root,
            "path": path,
            "test_path": test_path,
            "download": download,
            "layout": layout,
            "label_column": label_column,
            "case_column": case_column,
            "time_column": time_column,
        }
        self._ready = False

    @staticmethod
    def complete(config: dict[str, Any]) -> dict[str, Any]:
        """Counts what the config leaves open (your own file), and names its classes: a checkpoint keeps their order."""
        if "sets" in config["source"]:  # of an archive's sizes, the run keeps those of its set
            sets = {config["name"]: config["source"]["sets"][config["name"]]}
            config = config | {"source": config["source"] | {"sets": sets}}
        if all(config.get(key) is not None for key in COUNTED):
            return config
        train, test = readers.load(config)
        _check_labels(train, test)
        both = [part for part in (train, test) if part is not None]
        found = {
            "length": max(part.values.shape[1] for part in both),
            "variates": train.values.shape[2],
            "class_names": _occurring(train, both),
        }
        found["classes"] = len(found["class_names"])
        return config | {key: value for key, value in found.items() if config.get(key) is None}

    def prepare_data(self) -> None:
        """Finds the file, or downloads it into the cache folder (in one process only)."""
        sources.locate(self._reading)

    def setup(self, stage: str | None = None) -> None:
        """Loads, checks, splits and scales; once, whatever the stage."""
        if self._ready:
            return
        train, test = readers.load(self._reading)
        _check_labels(train, test)
        if test is None:
            kept, taken = stratified(train.labels, self.test_share, self.split_seed, "test")
            train, test = select(train, kept), select(train, taken)
        self._check_statement(train, test)
        val = None
        if self.validation not in (0, "test"):
            kept, taken = stratified(train.labels, self.validation, self.split_seed, "validation")
            train, val = select(train, kept), select(train, taken)
        self._scale_from(train)
        self.variate_names = train.variates
        self.train, self.test = self._batches(train), self._batches(test)
        self.val = None if val is None else self._batches(val)
        if self.validation == "test":
            log.warning("data.validation=test: the epoch is chosen on the test part, which flatters the score; tables")
            log.warning("that were made so are the only reason to do it")
            self.val = self.test
        self._ready = True

    def scaled(self, cases: Cases) -> Tensor:
        """(M, L, N) float32 in the scale of the training part, 0 after a case's end."""
        return to_scale(cases, self.length, self.mean, self.std)

    def _batches(self, cases: Cases) -> CaseBatches:
        number = {name: i for i, name in enumerate(self.class_names)}
        y = torch.tensor([number[label] for label in cases.labels])
        return CaseBatches(self.scaled(cases), torch.from_numpy(cases.lengths), y, cases.names)

    def _check_statement(self, train: Cases, test: Cases) -> None:
        """What the config says against what the files hold; fills in what it leaves open."""
        names = _occurring(train, [train, test])
        if self.class_names is None:
            self.class_names = names
        elif set(names) - set(self.class_names):
            raise ValueError(
                f"{train.file}: class {', '.join(sorted(set(names) - set(self.class_names)))} is not in"
                f" data.class_names={self.class_names}"
            )
        found = {
            "length": max(train.values.shape[1], test.values.shape[1]),
            "variates": train.values.shape[2],
            "classes": len(self.class_names),
        }
        for key, number in found.items():
            stated = getattr(self, key)
            if stated is None:
                setattr(self, key, number)
            elif stated != number and (key != "length" or stated < number or self.cases is not None):
                raise ValueError(f"data.{key}={stated}, but {train.file} has {number}: set data.{key}={number}")
        counts = [len(train), len(test)]
        if self.cases is not None and list(self.cases) != counts:
            raise ValueError(
                f"data.cases={list(self.cases)} (training, test), but {train.file} has {counts}: another version of the"
                " set? data.cases=null accepts it"
            )

    def _scale_from(self, train: Cases) -> None:
        self.mean, self.std = (torch.full((train.values.shape[2],), value, dtype=torch.float64) for value in (0.0, 1.0))
        if self.scale == "none":
            return
        steps = np.arange(train.values.shape[1]) < train.lengths[:, None]
        values = train.values[steps].astype(np.float64)
        mean, std = values.mean(0), values.std(0)
        constant = std <= 1e-12 * np.abs(mean)
        if constant.any():
            names = ", ".join(train.variates[i] for i in np.flatnonzero(constant)[:8])
            log.warning("%s: constant over the training cases, scaled by 1: %s", train.file, names)
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(np.where(constant, 1.0, std))


def to_scale(cases: Cases, length: int, mean: Tensor, std: Tensor) -> Tensor:
    """(M, length, N) float32: (x - mean) / std, and 0 after a case's end."""
    inside = np.arange(length) < cases.lengths[:, None]
    x = (lengthened(cases, length) - mean.numpy()) / std.numpy()
    return torch.from_numpy((x * inside[:, :, None]).astype(np.float32))


def _occurring(train: Cases, parts: Sequence[Cases]) -> list[str]:
    """The class names that have cases, in the order of the training file."""
    met = {label for part in parts for label in part.labels or ()}
    return [name for name in train.classes if name in met] + in_order(met - set(train.classes))


def _check_labels(train: Cases, test: Cases | None) -> None:
    """Every case has a label; training has every class that test has, and more than one."""
    for part in (train, test):
        if part is not None and part.labels is None:
            raise ValueError(f"{part.file} has no labels: training and testing need them")
    classes = set(train.labels)
    if len(classes) < 2:
        raise ValueError(
            f"{train.file}: all {len(train)} training cases are of class {train.labels[0]!r}: nothing to tell apart"
        )
    unseen = in_order(set(test.labels) - classes) if test is not None else []
    if unseen:
        raise ValueError(
            f"{test.file}: no training case is of class {', '.join(unseen)}; those of {train.file} are of"
            f" {', '.join(in_order(classes))}"
        )


def _check_share(key: str, value: object, words: Sequence[str] = ()) -> None:
    if value in words:
        return
    if isinstance(value, bool | str) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"data.{key}={value!r}: give a share in [0, 1){''.join(f', or {word}' for word in words)}")

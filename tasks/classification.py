"""What every classification task shares: loss, metrics, the confusion matrix, and the floor of always naming one class.

Shapes: B batch, C classes.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from tasks.artefacts import cached
from tasks.data import TaskData
from tasks.schedules import Schedule, constant
from tasks.task import Optimizer, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, Tensor]
CALIBRATION_BINS = 15


class Classification(Task):
    """One label per case, by cross-entropy. A subclass says what of a batch goes into the model.

    The data module states `classes` (C) and `class_names` (C names); batches have the labels in `y` (B,) int64.
    A model, or a baseline, with `discover(*inputs, labels)` is given the training split before training, see `prepare`.

    Args:
        model: (inputs) -> logits (B, C).
        label_smoothing: the share of a label that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
        baselines: classifiers without training, scored on the test split beside the model.

    Raises:
        ValueError: label_smoothing outside [0, 1).
    """

    logged = (
        *("val/loss", "val/accuracy", "val/f1"),
        *("test/accuracy", "test/balanced_accuracy", "test/f1", "test/ece", "test/loss"),
        "figures/confusion",
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        schedule: Schedule = constant,
        label_smoothing: float = 0.0,
        baselines: dict[str, nn.Module] | None = None,
        monitor: str = "val/accuracy",
        direction: str = "max",
    ):
        super().__init__(model, optimizer, schedule, monitor, direction)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"task.label_smoothing={label_smoothing}: choose from [0, 1)")
        self.label_smoothing = label_smoothing
        self.baselines = nn.ModuleDict(baselines or {})

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What of a batch the model takes."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """(B, C) logits of a batch."""
        return self.model(*self.inputs(batch))

    def prepare(self, data: TaskData) -> None:
        """Shows the training split to the model and the baselines that want to see it, through the cache."""
        looking = [model for model in (self.model, *self.baselines.values()) if hasattr(model, "discover")]
        if not looking:
            return
        batch = data.train[torch.arange(len(data.train))]
        shown = (*self.inputs(batch), batch["y"])
        for model in looking:
            model.adopt(cached(type(model).__name__, model.discovery, shown, partial(model.discover, *shown)))

    def setup(self, stage: str) -> None:
        """Metrics of the data at hand: its number of classes."""
        data = self.trainer.datamodule
        self.class_names = list(data.class_names)
        self.val_scores = Scores(data.classes)
        self.test_scores = nn.ModuleDict({name: Scores(data.classes) for name in ("model", *self.baselines)})

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The loss of one batch."""
        return F.cross_entropy(self(batch), batch["y"], label_smoothing=self.label_smoothing)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Adds a batch to the validation scores."""
        self.val_scores.update(self(batch), batch["y"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/*`."""
        self.log_dict({f"val/{name}": value for name, value in self.val_scores.compute().items()})
        self.val_scores.reset()

    def test_step(self, batch: Batch, _: int) -> None:
        """Adds a batch to the test scores of the model and of every baseline."""
        self.test_scores["model"].update(self(batch), batch["y"])
        for name, baseline in self.baselines.items():
            self.test_scores[name].update(baseline(*self.inputs(batch)), batch["y"])

    def on_test_epoch_end(self) -> None:
        """Logs `test/*`; keeps the baselines' metrics and the details for results.json."""
        scores = {
            name: {f"test/{metric}": value for metric, value in made.compute().items()}
            for name, made in self.test_scores.items()
        }
        self.log_dict(scores.pop("model"))
        self.baseline_metrics = {name: {k: float(v) for k, v in row.items()} for name, row in scores.items()}
        self.confusion = self.test_scores["model"].confusion.compute().cpu()
        self.details = {"classes": self.class_names, "confusion": self.confusion.tolist()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The names of the classes go with the weights: predictions on new files need no training data."""
        checkpoint["class_names"] = list(self.trainer.datamodule.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the names of the classes out of a checkpoint."""
        self.class_names = checkpoint["class_names"]

    def figures(self) -> Iterator[tuple[str, "Figure"]]:
        """The confusion matrix of the last test."""
        yield "confusion", draw_confusion(self.confusion, self.class_names)


class Scores(nn.Module):
    """Loss, accuracy, top-5 accuracy (of more than five classes), balanced accuracy, macro F1, calibration error.

    Every case counts the same whatever the batches. ECE: 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599).
    """

    def __init__(self, classes: int):
        super().__init__()
        named = {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "balanced_accuracy": MulticlassAccuracy(classes, average="macro"),
            "f1": MulticlassF1Score(classes, average="macro"),
            "ece": MulticlassCalibrationError(classes, n_bins=CALIBRATION_BINS),
        }
        if classes > 5:
            named["top5_accuracy"] = MulticlassAccuracy(classes, average="micro", top_k=5)
        self.scores = MetricCollection(named, compute_groups=False)
        self.loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(classes)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: (B, C) and (B,)."""
        probabilities = logits.float().softmax(-1)
        self.scores.update(probabilities, labels)
        self.confusion.update(probabilities, labels)
        self.loss.update(F.cross_entropy(logits.float(), labels, reduction="none"))

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name."""
        return {"loss": self.loss.compute(), **self.scores.compute()}

    def reset(self) -> None:
        """Forgets all batches."""
        for metric in (self.scores, self.loss, self.confusion):
            metric.reset()


def draw_confusion(counts: Tensor, names: list[str]) -> "Figure":
    """A heat map (true class down, predicted class across), rows as shares; counts written in for up to 15 classes."""
    import matplotlib.pyplot as plt

    size = len(names)
    figure, panel = plt.subplots(figsize=(3 + 0.32 * size, 2.6 + 0.3 * size), layout="constrained")
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    image = panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    if size <= 15:
        for row, column in torch.cartesian_prod(torch.arange(size), torch.arange(size)).tolist():
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.5 else "black"
                panel.text(column, row, int(counts[row, column]), ha="center", va="center", color=colour, fontsize=7)
    if size <= 40:
        shown = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
        panel.set_xticks(range(size), shown, rotation=90, fontsize=7)
        panel.set_yticks(range(size), shown, fontsize=7)
    panel.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, ax=panel, shrink=0.8, label="share of the true class")
    return figure

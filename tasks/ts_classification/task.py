"""Classification of multivariate series of equal or unequal length, around any series classifier.

A series classifier maps x (B, L, N), zero after a case's end, and true lengths (B,) to logits (B, C).
Shapes: B batch, L steps, N variates, C classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tasks.classification import Batch, Classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SeriesClassification(Classification):
    """Classification of whole series; loss, metrics and what a model learns before training are those of the base."""

    logged = (
        *Classification.logged,
        *("figures/cases", "figures/shapelets", "figures/attention", "figures/tokens", "figures/prior"),
    )

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """x (B, L, N) and the true lengths (B,)."""
        return batch["x"], batch["lengths"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The scale of the data goes with the weights, beside the names of the classes."""
        super().on_save_checkpoint(checkpoint)
        data = self.trainer.datamodule
        checkpoint["scale"] = {"mean": data.mean, "std": data.std, "variates": list(data.variate_names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the names of the classes, mean and std (N,), and the names of the N variates out of a checkpoint."""
        super().on_load_checkpoint(checkpoint)
        self.scale = checkpoint["scale"]

    @staticmethod
    def example_inputs(data: dict[str, Any], batch: int, device: torch.device) -> tuple[Tensor, ...]:
        """x (B, L, N) as the data config states it, all cases as long."""
        return (torch.empty(batch, data["length"], data["variates"], device=device),)

    def figures(self) -> Iterator[tuple[str, "Figure"]]:
        """The confusion matrix; test cases with their predictions; shapelets and attention where the model has them."""
        from tasks.ts_classification import figures

        yield from super().figures()
        yield from figures.draw(self)

    def predictions(self) -> tuple[list[str], list[list[Any]]]:
        """The first test cases: name, true and predicted class, and how sure the model is."""
        from tasks.ts_classification import figures

        return figures.table(self)

    def predict_file(self, data: dict[str, Any], source: Path, target: Path) -> str:
        """Names the class of every case of a file; see `tasks.ts_classification.predict`."""
        from tasks.ts_classification.predict import predict_file

        return predict_file(self, data, source, target)

"""Anomaly detection with any forecaster: the worse a step is reconstructed or forecast, the stranger it is.

Notable: a model from (B, L, N) to (B, H, N) reconstructs its own window where it is built with H = L, and forecasts the
steps after it otherwise; the score of a step is the mean squared error over its variates; labels are only ever compared
with, and the threshold comes from train scores unless told otherwise.
Shapes: B batch, L look-back, H horizon, N variates, R steps.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.data import choose
from tasks.schedules import Schedule, constant
from tasks.task import Optimizer, Task
from tasks.ts_anomaly import metrics
from tasks.ts_anomaly.scores import THRESHOLDS, StepScores, check_ratio, threshold_at
from tasks.ts_anomaly.windows import SCORINGS

log = logging.getLogger(__name__)

Batch = dict[str, Tensor]
NOTES = {
    "test/best_f1": "an oracle, at the best threshold for these labels",
    "test/point_adjusted_f1": "inflated, one flagged step makes its whole event count: compare the random score's",
}


class AnomalyDetection(Task):
    """Training to reconstruct or forecast scaled values (mean squared error), scoring by how badly that goes.

    Args:
        model: (B, L, N) -> (B, H, N).
        scoring: `reconstruction` (a window is its own target) or `forecast` (the H steps after it are).
        ratio: percentage of the scores behind the threshold that lie above it, in (0, 50].
        threshold_from: whose scores these are: all `train` rows, their `validation` part, or `train_and_test` (the
            habit of published tables; what is flagged then depends on the test data).
        baselines: detectors of `tasks.ts_anomaly.floors`, fitted on the rows that the model is trained on.

    Raises:
        ValueError: unknown scoring or threshold_from; a ratio outside (0, 50].
    """

    logged = (
        "val/loss",
        *(
            f"test/{name}"
            for name in ("auc_pr", "auc_roc", "best_f1", "f1", "event_f1", "range_f1", "vus_pr", "vus_roc")
        ),
        *("test/point_adjusted_f1", "test/random_point_adjusted_f1", "test/flagged"),
        *("figures/anomalies", "figures/scores", "figures/precision_recall"),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        schedule: Schedule = constant,
        scoring: str = "reconstruction",
        ratio: float = 1.0,
        threshold_from: str = "train",
        baselines: dict[str, nn.Module] | None = None,
        monitor: str = "val/loss",
        direction: str = "min",
    ):
        super().__init__(model, optimizer, schedule, monitor, direction)
        choose("task.scoring", scoring, SCORINGS)
        choose("task.threshold_from", threshold_from, THRESHOLDS)
        check_ratio(ratio)
        self.scoring, self.ratio, self.threshold_from = scoring, ratio, threshold_from
        self.floors = dict(baselines or {})
        self.known: Tensor | None = None

    def forward(self, batch: Batch) -> Tensor:
        """(B, H, N) scaled values: the window again, or what follows it."""
        return self.model(batch["x"])

    def setup(self, stage: str) -> None:
        """A place for the score of every row of the data at hand."""
        data = self.trainer.datamodule
        self.train_scores = StepScores(len(data.train_values))
        self.test_scores = StepScores(len(data.test_values))

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The mean squared error of one batch."""
        return F.mse_loss(self(batch), batch["y"])

    def squared_errors(self, batch: Batch) -> Tensor:
        """(B, H, N)."""
        return (self(batch) - batch["y"]).square()

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Scores held-out and trained-on rows alike."""
        self.train_scores.update(self.squared_errors(batch), batch["rows"], batch["covered"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/loss`, the mean squared error of the held-out steps; keeps the scores that go with the weights."""
        score, _, seen = self.train_scores.compute()
        data = self.trainer.datamodule
        held_out = data.val_rows.to(seen.device)
        self.log("val/loss", score[held_out][seen[held_out]].mean())
        self.known = self._behind_the_threshold(score, seen).sort().values
        self.train_scores.reset()

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Scores the test rows, and again the train rows."""
        scores = self.train_scores if dataloader_idx else self.test_scores
        scores.update(self.squared_errors(batch), batch["rows"], batch["covered"])

    def on_test_epoch_end(self) -> None:
        """Logs `test/*`, those of the floors beside them; says which metrics the labels do not allow."""
        data = self.trainer.datamodule
        score, _, seen = (t.cpu() for t in self.train_scores.compute())
        train = self._behind_the_threshold(score, seen)
        score, self.worst, seen = (t.cpu() for t in self.test_scores.compute())
        score[~seen] = score[seen].min()  # forecasts have no history for a recording's first steps: never flagged
        self.scores = score[data.test_rows]
        self.worst = self.worst[data.test_rows]
        self.floor_scores, found = {}, {}
        self.labels = data.labels if self._usable(data.labels) else None
        self.threshold, found["model"] = self._judge(self.scores, train, data)
        for name, floor in self.floors.items():
            floor.fit(data.train_values[data.fit_rows])
            known = floor.score(data.train_values[self._rows(data)])
            self.floor_scores[name] = floor.score(data.test_values[data.test_rows])
            found[name] = self._judge(self.floor_scores[name], known, data)[1]
        ours = found.pop("model")
        if "test/point_adjusted_f1" in found.get("random", {}):
            ours["test/random_point_adjusted_f1"] = found["random"]["test/point_adjusted_f1"]
        self.log_dict(ours, batch_size=1)
        self.baseline_metrics = found
        self.details = self._details(data)

    def _rows(self, data: Any) -> Tensor:
        """The train rows behind the threshold."""
        return data.val_rows if self.threshold_from == "validation" else torch.cat([data.fit_rows, data.val_rows])

    def _behind_the_threshold(self, score: Tensor, seen: Tensor) -> Tensor:
        rows = self._rows(self.trainer.datamodule).to(score.device)
        return score[rows][seen[rows]]

    def _usable(self, labels: Tensor | None) -> bool:
        if labels is None:
            log.warning("the test data has no labels: steps are scored and flagged, there is no F1 and no area")
        elif labels.all() or not labels.any():
            state = "anomalous" if labels.all() else "normal"
            log.warning(
                "every test step is labelled %s: F1 and the areas are undefined, since they compare the two kinds; "
                "test/flagged is the share of steps above the threshold",
                state,
            )
        else:
            log.info("%s", "; ".join(f"{name} is {note}" for name, note in NOTES.items()))
            metrics.say_what_is_left_out()
            return True
        return False

    def _judge(self, scores: Tensor, train: Tensor, data: Any) -> tuple[float, dict[str, float]]:
        """The threshold, and the metrics at it."""
        known = torch.cat([train, scores]) if self.threshold_from == "train_and_test" else train
        threshold = threshold_at(self.ratio, known)
        found = {}
        if self.labels is not None:
            found = metrics.measure(scores, self.labels, threshold, data.borders, data.lookback)
            found["anomalous"] = float(self.labels.float().mean())
        found["flagged"] = float((scores > threshold).float().mean())
        return threshold, {f"test/{name}": value for name, value in found.items()}

    def _details(self, data: Any) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "threshold_from": f"{100 - self.ratio:g} % quantile of the {self.threshold_from.replace('_', ' ')} scores",
            "test_scores_seen_by_threshold": self.threshold_from == "train_and_test",
            "notes": NOTES,
            "steps": {"trained on": len(data.fit_rows), "held out": len(data.val_rows), "test": len(data.test_rows)},
            "steps_without_history": f"{len(data.without_history)}, given the lowest score",
            "series": [s.name for s in data.segments],
            "variates": list(data.columns),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Scale, columns and the sorted scores behind the threshold: new files need no training data."""
        data = self.trainer.datamodule
        checkpoint["detector"] = {
            "mean": data.mean,
            "std": data.std,
            "series": [s.name for s in data.segments],
            "columns": list(data.columns),
            "scores": self.known,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them out again."""
        self.detector = checkpoint["detector"]

    @staticmethod
    def example_inputs(data: dict[str, Any], batch: int, device: torch.device) -> tuple[Tensor, ...]:
        """x as the data config states it."""
        return (torch.empty(batch, data["lookback"], data["variates"], device=device),)

    def figures(self) -> Iterator[tuple[str, Any]]:
        """The series around anomalies with score and threshold; the scores of the whole test; precision and recall."""
        from tasks.ts_anomaly import figures

        return figures.draw(self)

    def predictions(self) -> tuple[list[str], list[list[Any]]]:
        """Events that were found or missed, and false alarms; see `tasks.ts_anomaly.events`."""
        from tasks.ts_anomaly import events

        return events.table(self)

    def predict_file(self, data: dict[str, Any], source: Path, target: Path) -> str:
        """Score, flag and shares of the variates for every row of a CSV; see `tasks.ts_anomaly.predict`."""
        from tasks.ts_anomaly.predict import predict_file

        return predict_file(self, data, source, target)

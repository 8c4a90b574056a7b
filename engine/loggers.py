"""Lightning's loggers, each with what it can take beyond metrics: settings, figures, predictions, the checkpoint."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import lightning as L
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from engine.fingerprint import IGNORED
from engine.published import published
from engine.run import Run


class Tracker(Protocol):
    """A Lightning logger, opened for a run from the config's `logger` block, which also takes a run's end.

    Raises:
        Exception: of any kind, where it cannot be opened.
    """

    def __init__(self, run: Run, task: L.LightningModule, settings: dict[str, Any]): ...

    def finish(self, run: Run, task: L.LightningModule, results: dict[str, Any], best: Path | None) -> None:
        """Takes figures, final metrics and what else it can of a finished run."""

    def close(self, exit_code: int) -> None:
        """Ends the run; an exit code other than 0 marks it as failed."""


class Wandb(WandbLogger):
    """Weights & Biases: one offline folder per run, with everything a dashboard needs."""

    def __init__(self, run: Run, task: L.LightningModule, settings: dict[str, Any]):
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        ours = settings["wandb"]
        online = not settings["offline"] or os.environ.get("WANDB_MODE") == "online"
        experiment = wandb.init(
            name=run.dir.name,
            dir=run.dir,
            mode="online" if online else "offline",
            project=ours["project"],
            entity=ours["entity"],
            group=ours["group"] or run.sweep,
            job_type=run.cfg.mode,
            tags=list(choices(run).values()) + list(ours["tags"]),
            config=run.plain() | {"fingerprint": run.fingerprint, "published": published(run)},
        )
        experiment.define_metric("trainer/global_step")
        experiment.define_metric("train/*", step_metric="trainer/global_step", summary="last")
        experiment.define_metric("val/*", step_metric="trainer/global_step", summary="last")
        experiment.define_metric(task.monitor, step_metric="trainer/global_step", summary=f"{task.direction},last")
        super().__init__(experiment=experiment)
        self.keep_checkpoint = ours["checkpoints"]

    def finish(self, run: Run, task: L.LightningModule, results: dict[str, Any], best: Path | None) -> None:
        """Figures as media, predictions and checkpoint as artifacts, the summary."""
        import wandb

        for figure in figures(run):
            self.experiment.log({f"figures/{figure.stem}": wandb.Image(str(figure))})
        columns, rows = task.predictions()
        if rows:
            table = wandb.Artifact(f"predictions-{run.fingerprint}", type="predictions")
            table.add(wandb.Table(columns=columns, data=rows), "predictions")
            self.experiment.log_artifact(table)
        if best and self.keep_checkpoint:
            checkpoint = wandb.Artifact(f"checkpoint-{run.fingerprint}", type="model", metadata=results["metrics"])
            checkpoint.add_file(str(best))
            self.experiment.log_artifact(checkpoint)
        facts = {"params": results["params"]["total"], "status": results["status"]}
        self.experiment.summary.update(results["metrics"] | facts)

    def close(self, exit_code: int) -> None:
        """Ends the W&B run."""
        self.experiment.finish(exit_code=exit_code)


class Csv(CSVLogger):
    """`csv/metrics.csv`, a row per logged step, and `csv/hparams.yaml`."""

    def __init__(self, run: Run, task: L.LightningModule, settings: dict[str, Any]):
        super().__init__(run.dir, name="", version="csv")
        self.log_hyperparams(hyperparameters(run))

    def finish(self, run: Run, task: L.LightningModule, results: dict[str, Any], best: Path | None) -> None:
        """A table takes no figures."""

    def close(self, exit_code: int) -> None:
        """Writes what is still in memory."""
        self.save()


class TensorBoard(TensorBoardLogger):
    """Event files: scalars, the HParams tab, figures as images."""

    def __init__(self, run: Run, task: L.LightningModule, settings: dict[str, Any]):
        super().__init__(run.dir, name="", version="tensorboard", default_hp_metric=False)
        from torch.utils.tensorboard.summary import hparams

        metric = task.monitor.partition("/")[2]
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in hyperparameters(run).items()}
        for summary in hparams(plain, {task.monitor: 0.0, f"test/{metric}": 0.0}):  # names of metrics, without values
            self.experiment.file_writer.add_summary(summary)

    def finish(self, run: Run, task: L.LightningModule, results: dict[str, Any], best: Path | None) -> None:
        """Figures as images, at the last step."""
        import matplotlib.image

        for figure in figures(run):
            pixels = matplotlib.image.imread(figure)
            self.experiment.add_image(f"figures/{figure.stem}", pixels, results.get("steps"), dataformats="HWC")

    def close(self, exit_code: int) -> None:
        """Writes what is still in memory."""
        self.experiment.close()


class MLflow(MLFlowLogger):
    """MLflow: parameters, metrics, tags; figures and the config as artifacts."""

    def __init__(self, run: Run, task: L.LightningModule, settings: dict[str, Any]):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401  (it sets the level of its logger)

        for name in ("mlflow", "alembic", "lightning.pytorch.loggers.mlflow"):  # they tell of every new table
            logging.getLogger(name).setLevel(logging.ERROR)
        address, artifacts, alone = settings["mlflow"]["tracking_uri"], None, nullcontext()
        if address.startswith("sqlite:///"):
            file = Path(address.removeprefix("sqlite:///")).resolve()
            file.parent.mkdir(parents=True, exist_ok=True)
            address, artifacts, alone = f"sqlite:///{file}", file.with_suffix("").as_uri(), locked(file)
        tags = choices(run) | {"mode": run.cfg.mode} | ({"sweep": run.sweep} if run.sweep else {})
        with alone:
            super().__init__(settings["mlflow"]["experiment"], run.dir.name, address, tags, artifact_location=artifacts)
            self.log_hyperparams(hyperparameters(run))

    def finish(self, run: Run, task: L.LightningModule, results: dict[str, Any], best: Path | None) -> None:
        """Figures, config and results as artifacts."""
        for figure in figures(run):
            self.experiment.log_artifact(self.run_id, str(figure), "figures")
        for name in ("config.yaml", "results.json"):
            self.experiment.log_artifact(self.run_id, str(run.dir / name))

    def close(self, exit_code: int) -> None:
        """Ends the MLflow run."""
        self.experiment.set_terminated(self.run_id, "FAILED" if exit_code else "FINISHED")


CLASSES: dict[str, type[Tracker]] = {"wandb": Wandb, "csv": Csv, "tensorboard": TensorBoard, "mlflow": MLflow}


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """One process at a time: MLflow makes a new SQLite store's tables without asking whether another does so too."""
    with store.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def choices(run: Run) -> dict[str, str]:
    """The options that name a run: task, model, preset."""
    return {group: str(run.choices[group]) for group in ("task", "model", "preset") if run.choices.get(group)}


def figures(run: Run) -> list[Path]:
    """The figures of a finished run."""
    return sorted((run.dir / "figures").glob("*.png"))


def hyperparameters(run: Run) -> dict[str, Any]:
    """Dotted keys as on the command line, of what decides a run's numbers; and its fingerprint."""
    config = {key: value for key, value in run.plain().items() if key not in IGNORED}
    return dict(flat(config)) | {"fingerprint": run.fingerprint}


def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b.c`, value) pairs of nested mappings."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

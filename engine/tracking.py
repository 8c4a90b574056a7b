"""Weights & Biases: one offline folder per run, with everything a dashboard needs."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from engine.errors import UserError
from engine.published import published
from engine.run import Run


def make_loggers(run: Run, task: L.LightningModule) -> list[WandbLogger]:
    """The W&B logger of this run, or none; offline unless `logger.wandb.offline=false` or WANDB_MODE says otherwise."""
    settings = run.plain()["logger"]["wandb"]
    if settings is None:
        return []
    os.environ.setdefault("WANDB_SILENT", "true")
    offline = settings["offline"] and os.environ.get("WANDB_MODE", "offline") != "online"
    choices = run.choices
    tags = [str(choices[g]) for g in ("task", "model", "preset") if choices.get(g)]
    logger = WandbLogger(
        name=run.dir.name,
        save_dir=run.dir,
        offline=offline,
        project=settings["project"],
        entity=settings["entity"],
        group=settings["group"] or run.sweep,
        job_type=run.cfg.mode,
        tags=tags + list(settings["tags"]),
        config=run.plain() | {"fingerprint": run.fingerprint, "published": published(run)},
    )
    try:
        experiment = logger.experiment
    except Exception as error:  # wandb raises many kinds; without a server the run must still be possible
        raise UserError(f"wandb: {error}; logger=none runs without it") from error
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("train/*", step_metric="trainer/global_step", summary="last")
    goal = "min" if task.direction == "min" else "max"
    for metric in {task.monitor, "val/mse", "val/mae"} if task.monitor == "val/mse" else {task.monitor}:
        experiment.define_metric(metric, step_metric="trainer/global_step", summary=f"{goal},last")
    return [logger]


def finish(
    run: Run, task: L.LightningModule, loggers: list[WandbLogger], results: dict[str, Any], best: Path | None
) -> None:
    """Figures as media, predictions and checkpoint as artifacts, the summary; closes the W&B run."""
    if not loggers:
        return
    import wandb

    experiment = loggers[0].experiment
    for figure in sorted((run.dir / "figures").glob("*.png")):
        experiment.log({f"figures/{figure.stem}": wandb.Image(str(figure))})
    columns, rows = task.predictions()
    if rows:
        table = wandb.Artifact(f"predictions-{run.fingerprint}", type="predictions")
        table.add(wandb.Table(columns=columns, data=rows), "predictions")
        experiment.log_artifact(table)
    if best and run.plain()["logger"]["wandb"]["checkpoints"]:
        checkpoint = wandb.Artifact(f"checkpoint-{run.fingerprint}", type="model", metadata=results["metrics"])
        checkpoint.add_file(str(best))
        experiment.log_artifact(checkpoint)
    experiment.summary.update({**results["metrics"], "params": results["params"]["total"], "status": results["status"]})
    close(loggers, 0)


def close(loggers: list[WandbLogger], exit_code: int) -> None:
    """Ends the W&B run; a failed run is marked as such."""
    if loggers:
        loggers[0].experiment.finish(exit_code=exit_code)

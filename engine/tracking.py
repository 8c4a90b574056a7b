"""Weights & Biases: one offline folder per run, with everything a dashboard needs."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from engine.errors import UserError, one_line
from engine.published import published
from engine.run import Run


def make_loggers(run: Run, task: L.LightningModule) -> list[WandbLogger]:
    """The W&B logger of this run, or none; offline unless `logger.wandb.offline=false` or WANDB_MODE says otherwise."""
    settings = run.plain()["logger"]["wandb"]
    if settings is None:
        return []
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    online = not settings["offline"] or os.environ.get("WANDB_MODE") == "online"
    tags = [str(run.choices[group]) for group in ("task", "model", "preset") if run.choices.get(group)]
    try:
        experiment = wandb.init(
            name=run.dir.name,
            dir=run.dir,
            mode="online" if online else "offline",
            project=settings["project"],
            entity=settings["entity"],
            group=settings["group"] or run.sweep,
            job_type=run.cfg.mode,
            tags=tags + list(settings["tags"]),
            config=run.plain() | {"fingerprint": run.fingerprint, "published": published(run)},
        )
    except Exception as error:  # wandb raises many kinds; none of them is worth losing the run's message
        raise UserError(f"wandb: {one_line(error)}; logger=none runs without it") from error
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("train/*", step_metric="trainer/global_step", summary="last")
    experiment.define_metric("val/*", step_metric="trainer/global_step", summary="last")
    experiment.define_metric(task.monitor, step_metric="trainer/global_step", summary=f"{task.direction},last")
    return [WandbLogger(experiment=experiment)]


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

"""mode=fit: train, validate, test with the best checkpoint, and leave the results."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

import kernels
from engine import figures, tracking
from engine.build import build_data, build_task, complete
from engine.callbacks import History
from engine.checkpoint import RecordConfig, load_weights, read_checkpoint
from engine.errors import Diverged
from engine.flops import count_flops
from engine.results import closing_table, write_results
from engine.run import Run, log
from engine.train import make_trainer, parameters


def fit(run: Run) -> float | None:
    """Trains the config's model and tests its best checkpoint.

    Returns:
        The best value of the monitored metric, which a sweeper optimises.

    Raises:
        Diverged: a training loss was not finite.
        UserError: model, data or trainer settings are wrong.
    """
    started = time.perf_counter()
    complete(run)
    config = run.plain()
    task = build_task(run, config)
    data = build_data(config)
    facts = model_facts(task, config)
    loggers = tracking.make_loggers(run, task)
    run.open()
    log.info(f"{run.choices['model']} on {config['data']['name']}: {run.dir}")
    trainer = make_trainer(run, config, task, data, loggers)
    trainer.callbacks.append(RecordConfig(config, run.choices))
    history = next(c for c in trainer.callbacks if isinstance(c, History))
    try:
        write_results(run, "running", **facts)
        best = train(trainer, task, data, run.dir)
        best_score = trainer.checkpoint_callback.best_model_score
        objective = None if best_score is None else float(best_score)
        metrics = ({} if objective is None else {task.monitor: objective}) | score(trainer, task, data)
        drawn = figures.save(run.dir / "figures", task, history)
    except BaseException as error:
        status = (
            "diverged" if isinstance(error, Diverged) else "failed" if isinstance(error, Exception) else "interrupted"
        )
        write_results(run, status, **facts, error=str(error))
        tracking.close(loggers, getattr(error, "exit_code", 1))
        if status == "interrupted":
            log.info(f"interrupted; what there is stands in {run.dir}")
            raise KeyboardInterrupt from error
        raise
    results = write_results(
        run,
        "done",
        **facts,
        metrics=metrics,
        objective=metrics.get("test/" + task.monitor.partition("/")[2]) if objective is None else objective,
        baselines=task.baseline_metrics,
        details=task.details,
        seconds={"train": round(history.train_seconds, 3), "total": round(time.perf_counter() - started, 3)},
        steps=trainer.global_step,
        figures=drawn,
    )
    tracking.finish(run, task, loggers, results, best)
    closing_table(run, results)
    return results["objective"]


def model_facts(task: L.LightningModule, config: dict[str, Any]) -> dict[str, Any]:
    """Parameters, FLOPs of one sample's forward pass, and the kernel behind each op."""
    device = "cuda" if torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu" else "cpu"
    chosen = kernels.choices(device)
    return {"params": parameters(task.model), "flops": count_flops(task, config["data"]), "kernels": chosen}


def train(trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule, folder: Path) -> Path | None:
    """Trains, then loads the best weights; a model without trainable parameters is taken as it is.

    Returns:
        The best checkpoint, or None for a model without trainable parameters.
    """
    if not parameters(task.model)["trainable"]:
        return None
    trainer.fit(task, datamodule=data)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = Path(trainer.checkpoint_callback.best_model_path or folder / "best.ckpt")
    if not best.is_file():  # no validation ever ran: the last weights are all there is
        trainer.save_checkpoint(best)
    load_weights(task, read_checkpoint(best), best)
    return best


def score(trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule) -> dict[str, float]:
    """Every `test/` metric of the task's present weights."""
    trainer.test(task, datamodule=data, verbose=False)
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}

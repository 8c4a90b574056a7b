"""mode=fit: train, validate, test with the best checkpoint, and leave the results."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

import kernels
from engine import distributed, figures, tracking
from engine.build import build_data, build_task, complete
from engine.callbacks import History
from engine.checkpoint import RecordConfig, load_weights, read_checkpoint
from engine.errors import Diverged, user_errors
from engine.flops import forward_cost
from engine.published import published
from engine.results import closing_table, write_results
from engine.resume import POINT, WholeFiles, announce_resume, resume_point
from engine.run import Run, log
from engine.together import first_says
from engine.train import make_trainer, parameters


def fit(run: Run) -> float | None:
    """Trains the config's model and tests its best checkpoint.

    Returns:
        The best value of the monitored metric, which a sweeper optimises: that of the test split for a model without
        parameters, None for one that was trained without a validation part.

    Raises:
        Diverged: a training loss was not finite.
        UserError: model, data or trainer settings are wrong.
    """
    started = time.perf_counter()
    complete(run)
    config = run.plain()
    task = build_task(run, config)
    data = build_data(config)
    with user_errors():
        task.prepare(data)
    facts = model_facts(task, config)
    trainer = make_trainer(run, config, task, data)
    trainer.callbacks.append(RecordConfig(run, published(run)))
    distributed.start(run, trainer, data)
    trainer.loggers = loggers = tracking.make_loggers(run, task) if run.leads else []
    run.open()
    announce(run, facts)
    history = next(c for c in trainer.callbacks if isinstance(c, History))
    try:
        point = resume_point(run)
        write_results(run, "running", **facts)
        best = train(trainer, task, data, run.dir, point)
        best_score = trainer.checkpoint_callback.best_model_score
        objective = None if best_score is None else float(best_score)
        tester = trainer
        if distributed.sharded(trainer):
            tester = make_trainer(run, distributed.for_evaluation(config), task, data)
            tester.loggers = loggers
        metrics = ({} if objective is None else {task.monitor: objective}) | score(tester, task, data)
        if best is None and task.model.state_dict() and run.leads:  # nothing was trained, but found in the data
            save_untrained(RecordConfig(run, published(run)), tester, run.dir / "best.ckpt")
        drawn = figures.save(run.dir / "figures", task, history) if run.leads else []
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
        objective=metrics.get("test/" + task.monitor.partition("/")[2]) if best is None else objective,
        baselines=task.baseline_metrics,
        details=task.details,
        seconds={"train": round(history.train_seconds, 3), "total": round(time.perf_counter() - started, 3)},
        steps=trainer.global_step,
        figures=drawn,
    )
    tracking.finish(run, task, loggers, results, best)
    closing_table(run, results)
    distributed.finish(run, trainer)
    return results["objective"]


def announce(run: Run, facts: dict[str, Any]) -> None:
    """One line: what runs, with which kernels, and where it goes."""
    with_kernels = "".join(f", {op} by {backend}" for op, backend in facts["kernels"].items())
    log.info(f"{run.choices['model']} on {run.cfg.data.name}{with_kernels}: {run.dir}")


def model_facts(task: L.LightningModule, config: dict[str, Any]) -> dict[str, Any]:
    """Parameters, FLOPs of one sample's forward pass, the kernel behind each op the model calls, what is monitored.

    Raises:
        UserError: with `kernel.strict`, a wanted kernel does not run on this device.
    """
    device = "cuda" if torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu" else "cpu"
    flops, ops = forward_cost(task, config["data"])
    with user_errors():
        chosen = kernels.choices(device, among=ops)
    watched = {"monitor": task.monitor, "direction": task.direction}
    return {"params": parameters(task.model), "flops": flops, "kernels": chosen} | watched


def train(
    trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule, folder: Path, point: dict[str, Any] | None
) -> Path | None:
    """Trains (on from a resume point), then loads the best weights; a model without parameters is taken as it is.

    Returns:
        The best checkpoint, or None for a model without trainable parameters.
    """
    if not parameters(task.model)["trainable"]:
        return None
    if point:
        announce_resume(point)
    wrapped = distributed.trained(trainer, task)
    trainer.fit(wrapped, datamodule=data, ckpt_path=folder / POINT if point else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = Path(trainer.checkpoint_callback.best_model_path or folder / "best.ckpt")
    if first_says(trainer, not best.is_file()):  # no validation ever ran: the last weights are all there is
        trainer.save_checkpoint(best)
    load_weights(task, read_checkpoint(best), best)
    return best


def save_untrained(record: RecordConfig, trainer: L.Trainer, path: Path) -> None:
    """A checkpoint of what a model without parameters took from the training data: what mode=test and predict read."""
    task = trainer.lightning_module
    contents = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(contents)
    record.on_save_checkpoint(trainer, task, contents)
    WholeFiles().save_checkpoint(contents, path)


def score(trainer: L.Trainer, task: L.LightningModule, data: L.LightningDataModule) -> dict[str, float]:
    """Every `test/` metric of the task's present weights."""
    trainer.test(task, datamodule=data, verbose=False)
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}

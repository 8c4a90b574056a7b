"""mode=test: score a checkpoint on the test split."""

import time

from omegaconf import OmegaConf

from engine import distributed, figures, tracking
from engine.build import build_data, build_task
from engine.callbacks import History
from engine.checkpoint import load_weights, read_checkpoint
from engine.fit import announce, model_facts, score
from engine.restore import restore
from engine.results import closing_table, write_results
from engine.run import Run
from engine.train import make_trainer


def test(run: Run) -> None:
    """Tests `ckpt` with the config that stands in it; the command line's own overrides are applied on top.

    Raises:
        UserError: the checkpoint cannot be read, or belongs to another model than the command names.
    """
    started = time.perf_counter()
    contents = read_checkpoint(run.cfg.ckpt)
    restore(run, contents)
    config = OmegaConf.to_container(run.cfg, resolve=True)
    task = build_task(run, config)
    load_weights(task, contents, run.cfg.ckpt)
    data = build_data(config)
    facts = model_facts(task, config)
    trainer = make_trainer(run, distributed.for_evaluation(config), task, data)
    distributed.start(run, trainer, data)
    trainer.loggers = loggers = tracking.make_loggers(run, task) if run.leads else []
    run.open()
    announce(run, facts)
    metrics = score(trainer, task, data)
    history = next(c for c in trainer.callbacks if isinstance(c, History))
    results = write_results(
        run,
        "done",
        **facts,
        metrics=metrics,
        baselines=task.baseline_metrics,
        details=task.details,
        seconds={"train": 0.0, "total": round(time.perf_counter() - started, 3)},
        figures=figures.save(run.dir / "figures", task, history) if run.leads else [],
    )
    tracking.finish(run, task, loggers, results, None)
    closing_table(run, results)
    distributed.finish(run, trainer)

"""The Lightning trainer of a run, and what is counted about its model."""

import logging
import warnings
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch import nn

from engine.callbacks import History, ProgressBar, StopOnDivergence
from engine.distributed import with_strategy
from engine.errors import user_errors
from engine.resume import POINT, ResumePoints, WholeFiles
from engine.run import Run, log
from engine.together import OwnNoise, StopTogether

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def make_trainer(run: Run, config: dict[str, Any], task: L.LightningModule, data: L.LightningDataModule) -> L.Trainer:
    """A Trainer with this project's callbacks; `trainer.*` are Lightning's own names, `patience` apart.

    It has no loggers yet: they write as soon as they exist, and wrong settings must surface before anything is written.

    Raises:
        UserError: Lightning refuses a setting.
    """
    quiet()
    settings = dict(config["trainer"])
    patience, seconds = settings.pop("patience"), settings.pop("checkpoint_seconds")
    every = settings["log_every_n_steps"]
    checkpoint = ModelCheckpoint(
        run.dir,
        "best",
        None if data.val is None else task.monitor,
        mode=task.direction,
        save_top_k=0 if data.val is None else 1,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
    callbacks = [
        StopOnDivergence(every),
        History(run.dir / "metrics.csv", every),
        ProgressBar(task.monitor),
        checkpoint,
        OwnNoise(),
        StopTogether(),
        ResumePoints(run.dir / POINT, seconds),
    ]
    if patience is not None and data.val is not None:
        callbacks.append(EarlyStopping(task.monitor, mode=task.direction, patience=patience, check_finite=True))
    for hooked in (task, *callbacks):
        skip_idle_hooks(hooked)
    warn_of_slow_precision(settings)
    settings = with_strategy(settings)
    # With `trainer.deterministic` torch would also fill every new tensor, some 300 a step, lest a program reads one
    # before it has written it: 0.8 ms of a step of 25, and no reason for two runs to differ.
    torch.utils.deterministic.fill_uninitialized_memory = False
    with user_errors(MisconfigurationException, RuntimeError):  # the latter: what srun was told does not fit
        return L.Trainer(
            **(settings | validation_interval(settings, data)),
            callbacks=callbacks,
            plugins=[WholeFiles()],
            logger=False,
            default_root_dir=run.dir,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def skip_idle_hooks(hooked: L.Callback | L.LightningModule) -> None:
    """Sets the hooks of every step that a callback or a task does not use to None: Lightning then does not call them.

    Calling them all costs about as much per step as the rest of Lightning's loop.
    """
    idle = L.Callback if isinstance(hooked, L.Callback) else L.LightningModule
    for hook in STEP_HOOKS:
        if getattr(type(hooked), hook) is getattr(idle, hook):
            setattr(hooked, hook, None)
    if isinstance(hooked, ModelCheckpoint):
        hooked.on_train_batch_end = None  # made to save after validations only


def validation_interval(settings: dict[str, Any], data: L.LightningDataModule) -> dict[str, int]:
    """A run that ends within its first epoch (`max_steps`) is still validated once, at its end."""
    steps = settings["max_steps"] * settings["accumulate_grad_batches"]
    return {"val_check_interval": steps} if 0 < steps < len(data.train_dataloader()) else {}


def warn_of_slow_precision(settings: dict[str, Any]) -> None:
    """bf16 on a CPU without hardware for it is 7 to 10 times slower than fp32."""
    on_cpu = settings["accelerator"] == "cpu" or not torch.cuda.is_available()
    if str(settings["precision"]).startswith("bf16") and on_cpu and not torch.cpu._is_avx512_bf16_supported():
        log.warning("trainer.precision=bf16 is 7 to 10 times slower than 32-true on this CPU")


def quiet() -> None:
    """Lightning's banners, and its warnings about what is meant to be so here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)  # "more workers": windows are gathered in memory
    warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero", UserWarning)  # no validation part
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists", UserWarning)  # it holds config.yaml and run.log
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning's own use of torch


def parameters(model: nn.Module) -> dict[str, int]:
    """Parameter counts: total and trainable."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, trainable in counts if trainable)}

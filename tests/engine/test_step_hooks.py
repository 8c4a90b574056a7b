"""Hooks of every step: those in use are called, idle ones cost nothing."""

import lightning as L
import torch

from engine.train import STEP_HOOKS, skip_idle_hooks


class Counting(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.called = []

    def training_step(self, batch, _):
        return (self.weight * batch.sum()).sum()

    def on_train_batch_end(self, *_):
        self.called.append("task")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Watching(L.Callback):
    def on_after_backward(self, trainer, task):
        task.called.append("callback")


def test_hooks_in_use_are_called_and_the_others_are_gone(tmp_path):
    task, callback = Counting(), Watching()
    skip_idle_hooks(task)
    skip_idle_hooks(callback)
    assert [hook for hook in STEP_HOOKS if getattr(task, hook) is not None] == ["on_train_batch_end"]
    assert [hook for hook in STEP_HOOKS if getattr(callback, hook) is not None] == ["on_after_backward"]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        max_steps=2, callbacks=[callback], default_root_dir=tmp_path, enable_model_summary=False, **quiet
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.ones(2, 1)))
    assert task.called == ["callback", "task"] * 2 and trainer.global_step == 2

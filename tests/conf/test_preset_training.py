"""Every preset trains: two steps of the model at its published size, on tiny data in the layout of its data set."""

import pytest
import tiny_data
import torch
from presets import PRESETS, composed

from engine.build import build_data, build_task, complete
from engine.compose import compose_run
from engine.train import make_trainer

LIMITS = ["data.batch_size=2", "data.download=false", "logger=none", "trainer=cpu"]
STEPS = [
    "trainer.max_steps=2",
    "trainer.limit_val_batches=1",
    "trainer.patience=null",
    "trainer.val_check_interval=1.0",
]


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_trains_for_two_steps(preset, tmp_path):
    settings = tiny_data.write(tmp_path / "data", composed(f"preset={preset}").data)
    run = compose_run([f"preset={preset}", f"data.root={tmp_path / 'data'}", *settings, *LIMITS, *STEPS], tmp_path)
    complete(run)
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    task.prepare(data)
    before = [p.detach().clone() for p in task.parameters()]
    trainer = make_trainer(run, config, task, data)
    trainer.fit(task, datamodule=data)
    after = list(task.parameters())
    assert trainer.global_step == 2
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

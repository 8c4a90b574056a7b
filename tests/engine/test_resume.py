"""Exact resume: runs stopped at every kind of moment end as the undisturbed one, to the last bit."""

import json
from typing import Any

import pytest
import torch
from command import Outcome, call

from tasks.ts_forecast.task import Forecast

STEPS = 24  # 3 epochs of 8 batches


class Stopped(KeyboardInterrupt):
    """The injected fault."""


@pytest.fixture(scope="module")
def command(data_args) -> tuple[str, ...]:
    """Three epochs of a small iTransformer with dropout, a resume point at every step, losses at every step."""
    model = ("model=itransformer", "model.d_model=16", "model.heads=2", "model.depth=1", "model.dropout=0.3")
    often = ("trainer.checkpoint_seconds=0", "trainer.log_every_n_steps=1", "trainer.max_epochs=3")
    return (*data_args, *model, *often, "hydra.run.dir=run")


def final(outcome: Outcome) -> dict[str, Any]:
    """All that a run leaves and that must not depend on whether it was stopped."""
    folder = outcome.folder / "run"
    results = json.loads((folder / "results.json").read_text())
    kept = {key: results[key] for key in ("status", "metrics", "baselines", "details", "steps", "objective")}
    for name in ("best.ckpt", "last.ckpt"):
        state = torch.load(folder / name, weights_only=True)["state_dict"]
        kept[name] = {key: tensor.numpy().tobytes() for key, tensor in state.items()}
    return kept | {"curves": (folder / "metrics.csv").read_text()}


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, hook: str = "training_step") -> None:
    """Lets the task's hook fail at its call number `step`."""
    genuine, calls = getattr(Forecast, hook), []

    def faulty(self, *arguments):
        calls.append(1)
        if len(calls) == step:
            raise Stopped
        return genuine(self, *arguments)

    monkeypatch.setattr(Forecast, hook, faulty)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, command) -> dict[str, Any]:
    outcome = call(tmp_path_factory.mktemp("undisturbed"), *command)
    assert outcome.code == 0, outcome.err
    assert len(final(outcome)["curves"].splitlines()) == 1 + STEPS + 3
    return final(outcome)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("training_step", 1),
        ("training_step", 2),
        ("training_step", 8),
        ("training_step", 9),
        ("training_step", 10),
        ("training_step", 23),
        ("training_step", 24),
        ("validation_step", 1),
        ("validation_step", 3),
        ("test_step", 1),
    ],
)
def test_a_stopped_run_ends_as_the_undisturbed_one(tmp_path, command, undisturbed, monkeypatch, hook, step):
    with monkeypatch.context() as patch:
        stop_at(patch, step, hook)
        assert call(tmp_path, *command).code == 130
    again = call(tmp_path, *command)
    assert again.code == 0, again.err
    if (hook, step) != ("training_step", 1):
        assert "resumed after step" in again.err
    assert final(again) == undisturbed


def test_a_run_stopped_again_and_again_ends_as_the_undisturbed_one(tmp_path, command, undisturbed, monkeypatch):
    for _ in range(5):
        with monkeypatch.context() as patch:
            stop_at(patch, 5)
            assert call(tmp_path, *command).code == 130
    assert final(call(tmp_path, *command)) == undisturbed

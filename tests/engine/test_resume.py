"""Exact resume: runs stopped at every kind of moment end as the undisturbed one, to the last bit."""

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from command import ROOT, Outcome, call

from benchmarks import kills
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
    return kills.final(outcome.folder / "run")


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


@pytest.mark.parametrize("writing", [False, True], ids=["at a random moment", "while a checkpoint is written"])
def test_a_killed_process_started_again_ends_as_the_undisturbed_one(tmp_path, series_csv, writing):
    data = ["data=csv", f"data.path={series_csv}", "trainer.max_epochs=20", "trainer.patience=null"]
    kills.finish(tmp_path / "undisturbed", data)
    said = kills.kill_once(tmp_path / "killed", data, random.uniform(0, 0.3), writing)
    assert "resumed after step" in said
    assert kills.final(tmp_path / "killed") == kills.final(tmp_path / "undisturbed")


def test_a_disk_that_is_full_ends_the_run_in_one_line_and_keeps_the_last_point(tmp_path, command, undisturbed):
    """A limit on the size of files stands for the full disk: the write fails half-way in the same place."""
    folder = tmp_path / "run"
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); limit = resource.RLIMIT_FSIZE;"
    limited = f"{limit} resource.setrlimit(limit, (40_000, 40_000)); import runner; runner.main()"
    call_ = subprocess.run(
        [sys.executable, "-c", limited, *command], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert call_.returncode == 2, call_.stderr
    last = call_.stderr.splitlines()[-1]
    assert last.startswith("runner: cannot write") and "last.ckpt" in last and "Traceback" not in call_.stderr
    assert [path.name for path in folder.glob("*.part")] == [] and not (folder / "last.ckpt").exists()
    assert final(call(tmp_path, *command)) == undisturbed


def test_a_torn_checkpoint_is_not_taken_for_a_good_one(tmp_path, command, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        call(tmp_path, *command)
    point = tmp_path / "run" / "last.ckpt"
    point.write_bytes(point.read_bytes()[:-2000])
    again = call(tmp_path, *command)
    assert "starting afresh" in again.err and "resumed" not in again.err
    assert final(again) == undisturbed


def test_a_checkpoint_of_another_set_up_in_the_same_directory_is_not_resumed(tmp_path, command, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        call(tmp_path, *command)
    other = call(tmp_path, *command, "optim.lr=0.01")
    assert "starting afresh" in other.err and "another set-up" in other.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == STEPS


def test_how_often_points_are_written_is_a_setting_that_changes_nothing_else(tmp_path, command, undisturbed):
    seldom = [a for a in command if not a.startswith("trainer.checkpoint_seconds")]
    outcome = call(tmp_path, *seldom, "trainer.checkpoint_seconds=1000")
    assert final(outcome) == undisturbed

"""Two processes on the CPU (gloo) are one run: same curve, same scores, one directory, one word on stderr.

Every start of processes costs seconds, so few runs answer all questions.
"""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import ROOT, Outcome, call, process_state, spawn, start

from engine.compose import compose_run

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
FILES = {"config.yaml", "results.json", "metrics.csv", "run.log", "figures", "best.ckpt", "last.ckpt"}


def curve(outcome: Outcome, column: str) -> list[float]:
    """A column of metrics.csv, empty fields left out."""
    return [float(row[column]) for row in csv.DictReader((outcome.dir / "metrics.csv").open()) if row[column]]


@pytest.fixture(scope="module")
def settings(tiny) -> tuple[str, ...]:
    """32 steps of the small iTransformer, without dropout, whose draws depend on who draws them."""
    same = [a for a in tiny if not a.startswith(("trainer=", "trainer.max_steps="))]
    epochs = ("trainer.max_epochs=4", "trainer.patience=null", "trainer.log_every_n_steps=2")
    return (*same, "model.dropout=0", *epochs, "trainer.checkpoint_seconds=0")


@pytest.fixture(scope="module")
def one(tmp_path_factory, settings) -> Outcome:
    """The run in one process."""
    outcome = call(tmp_path_factory.mktemp("one"), *settings, "trainer=cpu")
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def two(tmp_path_factory, settings) -> Outcome:
    """The same run in two processes, of which the first starts the second."""
    outcome = spawn(tmp_path_factory.mktemp("two"), *settings, *TWO)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory, settings) -> Outcome:
    """The same run by FSDP, in two processes that torchrun starts."""
    folder = tmp_path_factory.mktemp("fsdp")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = [*torchrun, str(ROOT / "tests/engine/fsdp_on_cpu.py"), *settings, *TWO, "trainer=fsdp"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr, folder)


@pytest.mark.parametrize("run", ["two", "shared_out"])
def test_the_curves_are_those_of_one_process(request, one, run):
    outcome = request.getfixturevalue(run)
    for column, points in {"train/loss": 16, "lr": 16, "val/mse": 4, "val/mae": 4}.items():
        assert len(curve(outcome, column)) == points
        assert curve(outcome, column) == pytest.approx(curve(one, column), rel=1e-5)


@pytest.mark.parametrize("run", ["two", "shared_out"])
def test_scores_baselines_and_details_are_those_of_one_process(request, one, run):
    outcome = request.getfixturevalue(run)
    for key in ("metrics", "params", "flops", "steps", "objective"):
        assert outcome.results[key] == pytest.approx(one.results[key], rel=1e-5)
    for key in ("last_value", "seasonal_naive"):
        assert outcome.results["baselines"][key] == pytest.approx(one.results["baselines"][key], rel=1e-5)
    for key in ("mse_per_step", "mae_per_variate"):
        assert outcome.results["details"][key] == pytest.approx(one.results["details"][key], rel=1e-5)


@pytest.mark.parametrize("run", ["two", "shared_out"])
def test_there_is_one_run_directory_written_once(request, one, run):
    outcome = request.getfixturevalue(run)
    assert [path.name for path in outcome.dir.parent.iterdir()] == [outcome.dir.name]  # .dir: exactly one results.json
    assert {path.name for path in outcome.dir.iterdir()} == FILES
    assert outcome.results["status"] == "done"
    assert outcome.out.count("test/mse_original") == 1
    lines = (outcome.dir / "run.log").read_text().splitlines()
    assert len([line for line in lines if "val/mse" in line]) == 4 and outcome.err.count("step 32: val/mse") == 1


@pytest.mark.parametrize("run", ["two", "shared_out"])
def test_the_best_checkpoint_is_one_file_that_a_single_process_can_test(request, tmp_path, run):
    outcome = request.getfixturevalue(run)
    best = outcome.dir / "best.ckpt"
    assert best.is_file() and torch.load(best, weights_only=True)["state_dict"]
    again = call(tmp_path, "mode=test", f"ckpt={best}", "trainer=cpu", "hydra.run.dir=outputs/again/run")
    assert again.code == 0, again.err
    scores = {key: value for key, value in outcome.results["metrics"].items() if key.startswith("test/")}
    assert again.results["metrics"] == pytest.approx(scores, rel=1e-5)


def test_a_run_fails_with_one_of_its_processes_and_goes_on_in_both_as_if_it_had_not(tmp_path, settings, two):
    process = start(tmp_path, *settings, *TWO)
    folder = tmp_path / two.dir.relative_to(two.folder)
    deadline = time.monotonic() + 60
    while not (folder / "last.ckpt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(child_of(process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "runner: process 1 ended with exit code -9" in err
    assert json.loads((folder / "results.json").read_text())["status"] == "failed"
    resumed = spawn(tmp_path, *settings, *TWO)
    assert resumed.code == 0, resumed.err
    assert "resumed after step" in resumed.err
    assert curve(resumed, "train/loss") == curve(two, "train/loss")
    assert resumed.results["metrics"] == two.results["metrics"]


def test_a_further_process_ends_when_the_first_is_gone(tmp_path, settings):
    with process_state():
        run = compose_run([*settings, *TWO], tmp_path)
    worker = [sys.executable, "-m", "engine.worker"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(worker, cwd=tmp_path, env=environ, input=pickle.dumps(run), capture_output=True, timeout=60)
    assert done.returncode == 1 and not done.stderr and not list(tmp_path.iterdir())  # its stdin ended, so it did


def child_of(pid: int) -> int:
    """The one process that another has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        pytest.skip("needs Linux's /proc with the children of a process")
    (child,) = children.read_text().split()
    return int(child)


MISTAKES = {
    "data.batch_size=15": "data.batch_size=15 cannot be shared out among 2 processes: choose 14 or 16",
    "trainer.num_nodes=2": "trainer.num_nodes=2: start with srun or torchrun, or set MASTER_ADDR",
    "trainer=fsdp": "requires a GPU accelerator",
    "trainer.strategy.find_unused_parameters=maybe": "expected true or false",
    "data.split=[198,30,12]": "the test split has 1 samples for 2 processes",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_once_before_any_other_process_starts(runner, tmp_path, settings, mistake):
    outcome = runner(*settings, *TWO, mistake)
    assert outcome.code == 2
    assert MISTAKES[mistake] in outcome.line
    assert not list(tmp_path.iterdir())


STARTED = {  # what torchrun and srun set for a second process
    "torchrun": {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1", "GROUP_RANK": "0"},
    "srun": {
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
    },
}


@pytest.mark.parametrize("starter", STARTED)
def test_a_process_that_does_not_lead_is_silent_about_mistakes(runner, tmp_path, settings, monkeypatch, starter):
    for key, value in STARTED[starter].items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("logging.disable", lambda level: None)  # it would last in this process
    outcome = runner(*settings, *TWO, "data.batch_size=15")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", "")
    assert not list(tmp_path.iterdir())


def test_fewer_started_processes_than_devices_are_refused(runner, settings, monkeypatch):
    for key, value in (STARTED["srun"] | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(key, value)
    outcome = runner(*settings, *TWO[:2], "trainer.devices=4")
    assert outcome.code == 2 and "devices=4" in outcome.line and "ntasks-per-node=2" in outcome.line

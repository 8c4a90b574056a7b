"""Where the jobs of a sweep run: this process, several processes, and what is said where a package is missing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command import spawn, start

from engine import packages


def lines(folder: Path) -> list[dict]:
    """Every line of every attempts.jsonl."""
    files = folder.glob("outputs/ts_forecast/*/attempts.jsonl")
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture
def parallel(data_args) -> tuple[str, ...]:
    """Two jobs in two processes."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install hydra-joblib-launcher")
    return ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *data_args, "model=linear", "seed=0,1")


def test_local_runs_the_jobs_in_the_commands_own_process(runner, tmp_path, data_args):
    outcome = runner("-m", "hydra/launcher=local", *data_args, "model=last_value", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert {line["pid"] for line in lines(tmp_path) if "began" in line} == {os.getpid()}


def test_joblib_runs_the_jobs_in_processes_of_their_own(tmp_path, parallel):
    outcome = spawn(tmp_path, *parallel, "trainer.max_steps=1")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "2 jobs: 2 done"
    assert len({line["pid"] for line in lines(tmp_path) if "began" in line}) == 2


def test_a_killed_process_of_joblib_is_accounted_for_and_its_job_runs_on_the_second_call(tmp_path, parallel):
    command = (*parallel, "trainer.max_steps=1")
    process = start(tmp_path, *command)
    deadline = time.monotonic() + 90
    while not (held := list(tmp_path.glob("outputs/*/*/lock.*"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(json.loads(held[0].read_text())["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1, err
    assert "interrupted" in out.splitlines()[-1] or "not started" in out.splitlines()[-1]
    assert "Traceback" not in err
    second = spawn(tmp_path, *command)
    assert second.code == 0, second.err
    assert sum(line.get("status") == "done" for line in lines(tmp_path)) == 2


def test_ray_runs_the_jobs_in_processes_of_its_own(tmp_path, data_args):
    pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    outcome = spawn(tmp_path, "-m", "hydra/launcher=ray", *data_args, "model=last_value", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert "2 jobs: 2 done" in outcome.out.splitlines()  # Ray hands on what the jobs printed, later too
    assert len(lines(tmp_path)) == 4


@pytest.mark.parametrize("option", sorted(packages.PLUGINS))
def test_a_package_that_is_missing_is_told_in_one_line(runner, data_args, monkeypatch, option):
    package = packages.PLUGINS[option][1]
    monkeypatch.setitem(packages.PLUGINS, option, ("no_such_module", package))
    outcome = runner("-m", option, *data_args, "model=linear", "seed=0,1")
    assert outcome.code == 2
    assert outcome.line == f"runner: {option} needs {package}, which is not installed: pip install {package}"

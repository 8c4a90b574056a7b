"""examples/wandb_sweep.yaml: what `wandb sweep` and `wandb agent` make of it; the server is one on 127.0.0.1."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from command import ROOT
from omegaconf import OmegaConf
from wandb_server import serving

FILE = ROOT / "examples" / "wandb_sweep.yaml"


@pytest.fixture
def sweep() -> dict:
    return yaml.safe_load(FILE.read_text())


def arguments(sweep: dict, values: dict) -> list[str]:
    """The command that wandb's agent would start for these values, without /usr/bin/env."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    pieces = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    known = pieces | {"program": [sweep["program"]], "env": []}
    words = utils.create_sweep_command(sweep["command"])
    return [part for word in words for part in known.get(word.strip("${}"), [word])]


def test_every_parameter_is_a_key_or_a_group_of_the_config(runner, sweep):
    for pick in (0, -1):
        values = {
            name: options["values"][pick] if "values" in options else options["min" if pick == 0 else "max"]
            for name, options in sweep["parameters"].items()
        }
        program, *words = arguments(sweep, values)
        assert program == "runner"
        outcome = runner(*words, "--cfg", "job")
        assert outcome.code == 0, outcome.err
        cfg = OmegaConf.create(outcome.out)
        assert cfg.optim.lr == values["optim.lr"] and cfg.data.batch_size == values["data.batch_size"]
        assert cfg.logger.offline is False


def test_the_bounds_of_a_distribution_are_numbers(sweep):
    for name, options in sweep["parameters"].items():
        bounds = [options[key] for key in ("min", "max") if key in options]
        assert all(isinstance(bound, int | float) for bound in bounds), f"{name}: YAML reads 1e-4 as text"


def test_the_metric_is_what_the_task_monitors(runner, sweep):
    cfg = OmegaConf.create(runner("--cfg", "job").out)
    goal = {"min": "minimize", "max": "maximize"}[cfg.task.direction]
    assert sweep["metric"] == {"name": cfg.task.monitor, "goal": goal}


def test_wandb_agent_drives_runner_and_the_run_arrives_while_it_trains(tmp_path, data_args, sweep):
    short = [argument for argument in data_args if argument not in ("logger=none", "data.batch_size=16")]
    sweep["command"][-2:-1] = [*short, "trainer.max_steps=3", "trainer.log_every_n_steps=1"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "runner"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(ROOT / "runner.py")])} "$@"\n')
    program.chmod(0o755)
    with serving() as server:
        server.trials["run00001"] = {"model": "linear", "optim.lr": 0.002, "data.batch_size": 64}
        environ = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40}
        environ |= {"PATH": f"{program.parent}:{os.environ['PATH']}"}
        for words in (["sweep", "sweep.yaml"], ["agent", "--count", "1", "us/runner/sweep1"]):
            call = [sys.executable, "-m", "wandb", *words]
            done = subprocess.run(call, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=180)
            assert done.returncode == 0, done.stdout + done.stderr
    assert "run00001" in server.runs, done.stdout + done.stderr
    config = {name: entry["value"] for name, entry in json.loads(server.runs["run00001"]["config"]).items()}
    assert (config["optim"]["lr"], config["data"]["batch_size"]) == (0.002, 64)
    rows = server.history["run00001"]
    assert sum("train/loss" in row for row in rows) == 3 and any("val/mse" in row for row in rows)
    (results,) = tmp_path.glob("outputs/*/linear-*/results.json")
    assert json.loads(results.read_text())["status"] == "done"
    assert (
        "the results are in" in done.stdout + done.stderr
    )  # this server has no artifacts: told, and no more than that

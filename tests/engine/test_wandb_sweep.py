"""examples/wandb_sweep.yaml: the commands that `wandb agent` would start, made by wandb's own code, compose."""

import pytest
import yaml
from command import ROOT
from omegaconf import OmegaConf

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

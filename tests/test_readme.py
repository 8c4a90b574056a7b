"""The commands of the README are commands that work."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from engine import ROOT
from engine.compose import compose_run
from engine.modes import MODES

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"^    (runner [^#\n]*)", README, re.MULTILINE)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_composes(command, tmp_path):
    arguments = shlex.split(command)[1:]
    overrides = OverridesParser.create().parse_overrides([argument for argument in arguments if "=" in argument])
    assert "-m" in arguments or not any(o.is_sweep_override() for o in overrides)
    first = [f"{o.key_or_group}={o.value().list[0]}" for o in overrides if o.is_choice_sweep()]
    plain = [o.input_line for o in overrides if not o.is_sweep_override()]
    assert compose_run(plain + first, tmp_path).cfg.mode in MODES


def test_every_option_that_the_readme_names_exists():
    defaults = {
        path.stem for path in (ROOT / "conf/task").glob("*.yaml")
    }  # a task's name is also its default data, ...
    rows = {"model": "models", "model/mixer": "mixers", "method": "methods", "data": "data", "preset": "presets"}
    for group, row in ({"task": "tasks"} | rows).items():
        line = re.search(rf"^\| {row} \|(.*)\|$", README, re.MULTILINE)[1]
        named = set(re.findall(r"`([a-z0-9_]+)`", line))
        options = {path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml")}
        assert named <= options
        if group in rows:
            options -= defaults
        assert options - named <= ({"none"} if group == "method" else set())

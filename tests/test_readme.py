"""The commands of the README are commands that work."""

import re
import shlex

import pytest

from engine import ROOT
from engine.compose import compose_run
from engine.modes import MODES

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"^    (runner [^#\n]*)", README, re.MULTILINE)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_composes(command, tmp_path):
    arguments = shlex.split(command)[1:]
    overrides = [a for a in arguments if "=" in a and not re.search(r"=(tag|interval|range)\(", a)]
    first = [re.sub(r"=([^,\[]+),.*", r"=\1", o) if "-m" in arguments else o for o in overrides]
    assert compose_run(first, tmp_path).cfg.mode in MODES


def test_every_option_that_the_readme_names_exists():
    for group, names in {"model": "models", "model/mixer": "mixers", "data": "data", "preset": "presets"}.items():
        line = re.search(rf"^\| {names} \|(.*)\|$", README, re.MULTILINE)[1]
        options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        named = set(re.findall(r"`([a-z0-9_]+)`", line))
        assert named <= options
        hidden = {"ts_forecast"} | {name for name in options if name.startswith("_")}
        assert options - hidden == named

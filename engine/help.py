"""`runner --help`: what one can choose, each with the line that stands in its YAML."""

from pathlib import Path

from engine import CONF
from engine.modes import MODES

COMMANDS = {
    "runner": "forecast the weather data that comes with the install",
    "runner preset=itransformer": "a paper's laptop experiment",
    "runner -m model=itransformer,dlinear seed=0,1,2": "a sweep: six runs, compared fairly",
    "runner mode=describe preset=itransformer/weather": "parameters, FLOPs, memory; no data needed",
    "runner data=csv data.path=mine.csv data.horizon=24": "your own series",
}
GROUPS = (
    "task",
    "data",
    "model",
    "model/mixer",
    "method",
    "kernel",
    "optim",
    "optim/schedule",
    "trainer",
    "logger",
    "hydra/launcher",
    "hydra/sweeper",
)


def description(path: Path) -> str:
    """The first comment of a YAML file that is not a Hydra directive."""
    with path.open() as file:
        for line in file:
            if line.startswith("#") and not line.startswith("# @"):
                return line.lstrip("# ").strip()
    return ""


def options(group: str) -> list[tuple[str, str]]:
    """(option, description) of a group's own files; shared bases and task defaults are left out."""
    tasks = {p.stem for p in (CONF / "task").glob("*.yaml")}
    paths = sorted((CONF / group).glob("*.yaml"))
    hidden = set() if group == "task" else tasks
    return [(p.stem, description(p)) for p in paths if not p.stem.startswith("_") and p.stem not in hidden]


def section(title: str, rows: list[tuple[str, str]]) -> list[str]:
    """A heading and aligned rows."""
    width = max((len(name) for name, _ in rows), default=0)
    return ["", title, *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)]


def preset_rows() -> list[tuple[str, str]]:
    """Every paper, with the names of its published rows under it."""
    rows = []
    for name, text in options("preset"):
        rows.append((name, text))
        below = " ".join(row for row, _ in options(f"preset/{name}"))
        if below:
            rows.append(("", f"rows: {below}"))
    return rows


def help_text() -> str:
    """The whole page."""
    lines = [
        "runner: any published transformer experiment, alone or recombined, from one command.",
        "",
        "  runner [group=option] [key=value] ...",
    ]
    lines += section("To begin with:", list(COMMANDS.items()))
    lines += section("mode=", list(MODES.items()))
    for group in GROUPS:
        lines += section(f"{group}=", options(group))
    lines += section("preset= (a row: preset=<paper>/<row>)", preset_rows())
    lines += [
        "",
        "Every key and its value: runner --cfg job    Where a run goes: hydra.run.dir=...    A sweep: -m",
        'Tab completion: eval "$(runner --shell-completion install=bash)" (zsh, fish)    Hydra\'s help: --hydra-help',
    ]
    return "\n".join(lines)

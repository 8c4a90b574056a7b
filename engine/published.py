"""A paper's own figures for the set-up at hand."""

from typing import Any

from engine.check import is_group
from engine.run import Run

FREE = (
    "seed",
    "mode",
    "ckpt",
    "input",
    "output",
    "path",
    "debug",
    "logger",
    "kernel",
    "hydra",
    "data.root",
    "data.horizon",
    "preset",
    "paper",
)
"""What one may change without leaving the published set-up (a horizon selects its own figure)."""


def published(run: Run) -> dict[str, Any] | None:
    """The figures that the preset states for this run's horizon (and model), with their source.

    `changed` lists the overrides that leave the published set-up; None where the preset states no figure for this run.
    """
    paper = run.plain().get("paper") or {}
    figures = paper.get("published")
    for key in as_list(paper.get("published_by")):
        figures = (figures or {}).get(setting(run, key))
    if not figures:
        return None
    changed = [o for o in run.overrides if not is_free(o, as_list(paper.get("published_by")))]
    return dict(figures) | {
        "source": figures.get("source", paper.get("source", "source not stated")),
        "changed": changed,
    }


def setting(run: Run, key: str) -> Any:
    """`data.horizon` is a value of the config; a bare group name is the option chosen."""
    if is_group(key):
        return run.choices.get(key)
    value = run.plain()
    for part in key.split("."):
        value = value[part]
    return value


def is_free(override: str, selectors: list[str]) -> bool:
    """Whether an override leaves the published set-up as it is."""
    key = override.lstrip("+~").split("=")[0]
    return key in selectors or any(key == free or key.startswith((free + ".", free + "/")) for free in FREE)


def as_list(value: Any) -> list[str]:
    """None, one or several."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)

"""A paper's own figures for the set-up at hand."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.check import is_group
from engine.compose import composed
from engine.resolvers import option
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

    `changed` lists the overrides that leave the published set-up, those of the run that made the checkpoint too; None
    where the preset states no figure for this run.
    """
    paper = run.plain().get("paper") or {}
    figures = paper.get("published")
    for key in as_list(paper.get("published_by")):
        figures = (figures or {}).get(setting(run, key))
    if not figures:
        return None
    changed = as_list(paper.get("changed")) + leaving(run, as_list(paper.get("published_by")))
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


def leaving(run: Run, selectors: list[str]) -> list[str]:
    """The overrides that leave the published set-up; one that repeats the preset's own value does not.

    On top of a checkpoint, whose set-up no preset of the command states, every override leaves it.
    """
    suspects = [o for o in run.overrides if not is_free(o, selectors)]
    if not suspects or not any(o.startswith("preset=") for o in run.overrides):
        return suspects
    stated = composed([o for o in run.overrides if o not in suspects])
    return [o for o in suspects if differs(run, stated, o)]


def differs(run: Run, stated: DictConfig, override: str) -> bool:
    """Whether the config has another option or value than the preset states."""
    key = override.partition("=")[0]
    if key.startswith(("+", "~")):
        return True
    if is_group(key):
        return run.choices.get(key) != option(key, stated.hydra.runtime.choices.get(key))
    return plain(OmegaConf.select(run.cfg, key)) != plain(OmegaConf.select(stated, key))


def plain(value: Any) -> Any:
    """A config node as plain Python, anything else as it is."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def is_free(override: str, selectors: list[str]) -> bool:
    """Whether an override leaves the published set-up as it is."""
    key = override.lstrip("+~").split("=")[0]
    return key in selectors or any(key == free or key.startswith((free + ".", free + "/")) for free in FREE)


def as_list(value: Any) -> list[str]:
    """None, one or several."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)

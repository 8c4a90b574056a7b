"""Composes presets and builds their models without memory, for the tests of this folder."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engine import resolvers

CONF = Path(__file__).resolve().parents[2] / "conf"
PRESETS = sorted(
    path.relative_to(CONF / "preset").with_suffix("").as_posix()
    for path in (CONF / "preset").rglob("*.yaml")
    if not path.name.startswith("_")
)


@cache
def composed(*overrides: str) -> DictConfig:
    """The config of these overrides, Hydra's own part (`hydra.runtime.choices`, `hydra.sweeper`) included."""
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


Setting = tuple[tuple[str, Any], ...]
"""Keys and values that select one of a preset's published set-ups: (("model", "dlinear"), ("data.horizon", 96))."""


@cache
def resolved(preset: str, setting: Setting = ()) -> dict[str, Any]:
    """The resolved config of a preset, in one of its published set-ups.

    Composing takes a third of a second, so a set-up is put into the composed preset instead of composed with it.
    """
    cfg = composed(f"preset={preset}").copy()
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    for key, value in setting:
        if key == "model":
            own = {name: cfg.model[name] for name in ("individual",) if name in cfg.model}
            cfg.model = OmegaConf.merge(composed(f"model={value}").model, own)
        else:
            OmegaConf.update(cfg, key, value)
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def figures(preset: str) -> list[tuple[Setting, dict[str, float]]]:
    """(setting, figures) for every set-up that the preset publishes."""
    paper = composed(f"preset={preset}").paper
    table = OmegaConf.to_container(paper.published) if paper.published else {}
    by = paper.get("published_by") or []
    return rows(table, [by] if isinstance(by, str) else list(by)) if table else []


def rows(table: dict[Any, Any], keys: list[str]) -> list[tuple[Setting, dict[str, float]]]:
    """The leaves of a table nested by `keys`."""
    if not keys:
        return [((), table)]
    inner = [(value, rows(below, keys[1:])) for value, below in table.items()]
    return [(((keys[0], value), *setting), row) for value, leaves in inner for setting, row in leaves]


def parameters(config: dict[str, Any]) -> int:
    """How many parameters the model of a resolved config has, counted on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in instantiate(config["model"], _convert_="all").parameters())

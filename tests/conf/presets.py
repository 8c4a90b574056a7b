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


@cache
def resolved(preset: str, *, horizon: int | None = None, model: str | None = None) -> dict[str, Any]:
    """The resolved config of a preset, at one of its horizons, with one of its models.

    Composing takes a third of a second, so a variant is put into the composed preset instead of composed with it.
    """
    cfg = composed(f"preset={preset}").copy()
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    if horizon is not None:
        cfg.data.horizon = horizon
    if model is not None:
        cfg.model = OmegaConf.merge(composed(f"model={model}").model, {"individual": cfg.model.individual})
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def figures(preset: str) -> list[tuple[str | None, int | None, dict[str, float]]]:
    """(model, horizon, figures) for every set-up that the preset publishes."""
    paper = composed(f"preset={preset}").paper
    table = OmegaConf.to_container(paper.published) if paper.published else {}
    if paper.get("published_by") == "data.horizon":
        return [(None, horizon, row) for horizon, row in table.items()]
    if paper.get("published_by"):
        return [(model, horizon, row) for model, rows in table.items() for horizon, row in rows.items()]
    return [(None, None, table)] if table else []


def parameters(config: dict[str, Any]) -> int:
    """How many parameters the model of a resolved config has, counted on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in instantiate(config["model"], _convert_="all").parameters())

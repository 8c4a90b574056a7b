"""Configs and runs from overrides, within the command and outside it (claims, benchmarks, tests)."""

from contextlib import nullcontext
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from engine import CONF
from engine.fingerprint import fingerprint
from engine.resolvers import option, register
from engine.run import Run


def composed(overrides: list[str]) -> DictConfig:
    """The config that these overrides make, Hydra's own block included."""
    register()
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=overrides, return_hydra_config=True)


def compose_run(overrides: list[str], parent: Path, sweep: str | None = None) -> Run:
    """The run that `runner <overrides>` would be, in `<parent>/<model>-<fingerprint>`."""
    cfg = composed(overrides)
    choices = {group: option(group, choice) for group, choice in cfg.hydra.runtime.choices.items()}
    with open_dict(cfg):
        cfg.pop("hydra")
    identity = fingerprint(cfg)
    return Run(cfg, parent / f"{choices['model']}-{identity}", choices, overrides, sweep, identity)

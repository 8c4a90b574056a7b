"""A run from overrides, outside the command: for claims, benchmarks and tests."""

from contextlib import nullcontext
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import open_dict

from engine import CONF
from engine.fingerprint import fingerprint
from engine.resolvers import option, register
from engine.run import Run


def compose_run(overrides: list[str], parent: Path, sweep: str | None = None) -> Run:
    """The run that `runner <overrides>` would be, in `<parent>/<model>-<fingerprint>`."""
    register()
    inside = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=overrides, return_hydra_config=True)
    choices = {group: option(group, choice) for group, choice in cfg.hydra.runtime.choices.items()}
    with open_dict(cfg):
        cfg.pop("hydra")
    identity = fingerprint(cfg)
    return Run(cfg, parent / f"{choices['model']}-{identity}", choices, overrides, sweep, identity)

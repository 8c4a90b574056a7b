"""Data modules of the data configs, on the real data where it is on this machine."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from engine import resolvers
from tasks import sources
from tasks.ts_anomaly.data import AnomalyData

CONF = Path(__file__).parents[3] / "conf"


def config(name: str, *overrides: str) -> DictConfig:
    """The data config under this task."""
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["task=ts_anomaly", f"data={name}", "data.download=false", *overrides])
    OmegaConf.resolve(cfg.data)
    return cfg.data


def real(name: str) -> AnomalyData:
    """The set-up data module of a config; skips the test where the data is absent."""
    data = config(name)
    if sources.find(data) is None:
        pytest.skip(f"{name} is not on this machine: set RUNNER_DATA to the folder that holds {data.source.files[0]}")
    module = instantiate(data)
    module.setup()
    return module

"""Data modules of the data configs, on the real data where it is on this machine."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from engine import resolvers
from tasks import sources
from tasks.ts_anomaly.data import AnomalyData

CONF = Path(__file__).parents[3] / "conf"


def real(name: str) -> AnomalyData:
    """The set-up data module of a config; skips the test where the data is absent."""
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["task=ts_anomaly", f"data={name}", "data.download=false"]).data
    if sources.find(config) is None:
        pytest.skip(f"{name} is not on this machine: set RUNNER_DATA to the folder that holds {config.source.files[0]}")
    module = instantiate(config)
    module.setup()
    return module

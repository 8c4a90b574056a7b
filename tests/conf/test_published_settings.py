"""Settings of the papers' scripts, copied here by hand, against what the presets resolve to."""

import pytest
from presets import resolved

COLUMNS = (
    "data.name",
    "data.lookback",
    "data.batch_size",
    "optim.lr",
    "model.d_model",
    "model.depth",
    "trainer.max_epochs",
)
INVERTED = [
    # preset, horizon, data, look-back, batch, lr, width, layers, epochs
    ("itransformer", 96, "etth1", 96, 32, 1e-4, 256, 2, 10),
    ("itransformer/etth1", 192, "etth1", 96, 32, 1e-4, 256, 2, 10),
    ("itransformer/etth1", 720, "etth1", 96, 32, 1e-4, 512, 2, 10),
    ("itransformer/ettm2", 336, "ettm2", 96, 32, 1e-4, 128, 2, 10),
    ("itransformer/exchange", 192, "exchange", 96, 32, 1e-4, 128, 2, 10),
    ("itransformer/exchange", 336, "exchange", 96, 32, 1e-4, 128, 2, 1),
    ("itransformer/weather", 96, "weather", 96, 32, 1e-4, 512, 3, 10),
    ("itransformer/electricity", 96, "electricity", 96, 16, 5e-4, 512, 3, 10),
    ("itransformer/traffic", 96, "traffic", 96, 16, 1e-3, 512, 4, 10),
    ("itransformer/solar", 96, "solar", 96, 32, 5e-4, 512, 2, 10),
    ("itransformer/pems04", 12, "pems04", 96, 32, 5e-4, 1024, 4, 10),
    ("itransformer/pems07", 96, "pems07", 96, 16, 1e-3, 512, 4, 10),
    ("itransformer/pems08", 24, "pems08", 96, 32, 1e-4, 512, 2, 10),
    ("itransformer/pems08", 48, "pems08", 96, 16, 1e-3, 512, 4, 10),
    ("s_mamba", 96, "etth1", 96, 32, 7e-5, 256, 2, 4),
    ("s_mamba/etth1", 336, "etth1", 96, 32, 5e-5, 256, 2, 10),
    ("s_mamba/ettm1", 192, "ettm1", 96, 32, 5e-5, 128, 2, 10),
    ("s_mamba/exchange", 96, "exchange", 96, 16, 1e-4, 128, 2, 10),
    ("s_mamba/weather", 720, "weather", 96, 32, 5e-5, 512, 3, 5),
    ("s_mamba/traffic", 336, "traffic", 96, 16, 2e-3, 512, 4, 10),
    ("s_mamba/traffic", 720, "traffic", 96, 16, 8e-4, 512, 4, 10),
    ("s_mamba/pems03", 12, "pems03", 96, 32, 1e-3, 512, 4, 5),
    ("s_mamba/pems03", 48, "pems03", 96, 32, 1e-4, 512, 5, 10),
    ("s_mamba/pems07", 12, "pems07", 96, 16, 7e-4, 512, 2, 10),
    ("s_mamba/pems08", 96, "pems08", 96, 16, 1e-3, 256, 4, 10),
]
LINEAR = [
    # preset, horizon, data, look-back, batch, lr
    ("ltsf_linear", 96, "etth1", 336, 32, 0.005),
    ("ltsf_linear/etth2", 96, "etth2", 336, 32, 0.05),
    ("ltsf_linear/ettm1", 96, "ettm1", 336, 8, 0.0001),
    ("ltsf_linear/ettm2", 192, "ettm2", 336, 32, 0.001),
    ("ltsf_linear/ettm2", 336, "ettm2", 336, 32, 0.01),
    ("ltsf_linear/electricity", 96, "electricity", 336, 16, 0.001),
    ("ltsf_linear/exchange", 192, "exchange", 336, 8, 0.0005),
    ("ltsf_linear/exchange", 336, "exchange", 336, 32, 0.0005),
    ("ltsf_linear/traffic", 96, "traffic", 336, 16, 0.05),
    ("ltsf_linear/weather", 96, "weather", 336, 16, 0.0001),
    ("ltsf_linear/illness", 24, "illness", 104, 32, 0.01),
]
SURVEY = [
    # preset, horizon, data, look-back, batch, lr, width, layers, epochs
    ("ts_survey/published_robust", 96, "ettm2", 96, 32, 1e-4, 512, 2, 10),
    ("ts_survey/published_size", 96, "ettm2", 96, 32, 1e-4, 512, 6, 10),
    ("ts_survey/published_decomp", 720, "ettm2", 96, 32, 1e-4, 512, 2, 10),
]
SWITCHES = [
    ("itransformer/weather", 96, "model.use_norm", True),
    ("itransformer/pems04", 12, "model.use_norm", False),
    ("itransformer/pems08", 24, "model.use_norm", True),
    ("itransformer/pems08", 48, "model.use_norm", False),
    ("s_mamba/pems07", 24, "model.use_norm", False),
    ("s_mamba/pems08", 96, "model.use_norm", True),
    ("s_mamba/etth1", 96, "model.mixer.d_state", 2),
    ("s_mamba/electricity", 96, "model.mixer.d_state", 16),
    ("s_mamba/electricity", 192, "model.mixer.d_state", 32),
    ("itransformer", 96, "seed", 2023),
    ("ltsf_linear", 96, "seed", 2021),
    ("s_mamba", 96, "seed", 2023),
    ("itransformer/traffic", 96, "optim._target_", "torch.optim.Adam"),
    ("ltsf_linear/weather", 96, "optim.schedule._target_", "tasks.schedules.halving"),
    ("ts_survey/published_robust", 96, "model.d_ff", 2048),
    ("ts_survey/published_robust", 96, "model.decomposition", False),
    ("ts_survey/published_decomp", 96, "model.moving_average", 25),
    ("ts_survey/published_size", 96, "optim.schedule._target_", "tasks.schedules.halving"),
    ("ltsf_linear/weather_individual", 96, "model.individual", True),
    ("ltsf_linear/weather_individual", 96, "optim.lr", 0.0001),
]


def value(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("row", [*INVERTED, *LINEAR, *SURVEY], ids=lambda row: f"{row[0]}-{row[1]}")
def test_preset_has_the_settings_of_the_official_script(row):
    preset, horizon, *expected = row
    config = resolved(preset, (("data.horizon", horizon),))
    assert [value(config, key) for key in COLUMNS[: len(expected)]] == expected


@pytest.mark.parametrize(("preset", "horizon", "key", "expected"), SWITCHES)
def test_preset_sets_the_switch_that_its_row_states(preset, horizon, key, expected):
    assert value(resolved(preset, (("data.horizon", horizon),)), key) == expected


def test_width_of_the_feed_forward_follows_the_model():
    assert resolved("itransformer/etth1", (("data.horizon", 720),))["model"]["d_ff"] == 512

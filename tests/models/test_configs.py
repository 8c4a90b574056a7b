"""Every model config, composed and built as the command does it."""

import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from models.itransformer import ITransformer
from models.mixers.attention import Attention
from models.mixers.auto_correlation import AutoCorrelation
from models.mixers.flow import FlowAttention
from models.mixers.fourier import FourierMixer
from models.mixers.mamba import BiMamba, Mamba
from models.mixers.none import NoMixing
from models.mixers.prob_sparse import ProbSparse
from models.transformer import Transformer

MODELS = Path(__file__).parents[2] / "conf" / "model"
DATA = "seed: 0\ndata: {lookback: 96, horizon: 24, variates: 7, marks: 4, season: 24, length: 50, classes: 3}"
BY_TEXT = {path.stem: path.read_text() for path in sorted(MODELS.glob("*.yaml"))}
TASKS = {path.stem for path in (MODELS.parent / "task").glob("*.yaml")}
CLASSIFIERS = [name for name, text in BY_TEXT.items() if "${data.classes}" in text]
REBUILDERS = ["series_encoder"]
FORECASTERS = [name for name in BY_TEXT if name not in {*CLASSIFIERS, *REBUILDERS, *TASKS - {"ts_forecast"}}]


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """The model group under a config of only what it refers to, and a preset that sets a mixer's own option."""
    root = tmp_path_factory.mktemp("conf")
    shutil.copytree(MODELS, root / "model")
    (root / "config.yaml").write_text(f"defaults: [{{model: ts_forecast}}, {{preset: null}}, _self_]\n{DATA}\n")
    (root / "preset").mkdir()
    (root / "preset" / "small.yaml").write_text(
        "# @package _global_\ndefaults: [{override /model: s_mamba}]\nmodel: {d_model: 32, mixer: {d_state: 2}}\n"
    )
    return root


def build(conf, *overrides):
    with initialize_config_dir(str(conf), version_base="1.3"):
        return instantiate(compose("config", list(overrides)).model)


@pytest.mark.parametrize("name", FORECASTERS)
def test_every_model_config_builds_a_forecaster(conf, name):
    y = build(conf, f"model={name}")(torch.randn(2, 96, 7), torch.randn(2, 96, 4), torch.randn(2, 24, 4))
    assert y.shape == (2, 24, 7)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_config_builds_a_classifier_of_series(conf, name):
    x, lengths = torch.zeros(2, 50, 7), torch.tensor([50, 30])
    x[0], x[1, :30] = torch.randn(50, 7), torch.randn(30, 7)
    assert build(conf, f"model={name}").eval()(x, lengths).shape == (2, 3)


@pytest.mark.parametrize("name", REBUILDERS)
def test_every_encoder_config_builds_a_model_that_returns_its_window(conf, name):
    assert build(conf, f"model={name}", "data.horizon=96")(torch.randn(2, 96, 7)).shape == (2, 96, 7)


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_config_starts_with_a_description(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("overrides", "mixer"),
    [
        ([], Attention),
        (["model=s_mamba"], BiMamba),
        (["model=s_mamba", "model/mixer=mamba"], Mamba),
        (["model=s_mamba", "model/mixer=attention"], Attention),
        (["model=itransformer", "model/mixer=bimamba"], BiMamba),
        (["model/mixer=flow"], FlowAttention),
        (["model/mixer=none"], NoMixing),
        (["model/mixer=prob_sparse"], ProbSparse),
        (["model/mixer=auto_correlation"], AutoCorrelation),
        (["model/mixer=fourier", "+model.mixer.length=7"], FourierMixer),
    ],
    ids=lambda value: " ".join(value) or "default" if isinstance(value, list) else "",
)
def test_the_mixer_of_any_inverted_model_can_be_overridden(conf, overrides, mixer):
    net = build(conf, *overrides)
    assert isinstance(net, ITransformer)
    assert type(net.blocks[0].mixer) is mixer


FAMILY = {  # name: mixer, (positions, distil, decomposition)
    "transformer": (Attention, (True, False, False)),
    "informer": (ProbSparse, (True, True, False)),
    "autoformer": (AutoCorrelation, (False, False, True)),
    "fedformer": (FourierMixer, (False, False, True)),
}


@pytest.mark.parametrize("name", FAMILY)
def test_a_paper_of_the_transformers_family_is_a_mixer_and_three_switches(conf, name):
    net, (mixer, switches) = build(conf, f"model={name}", "model.d_model=16", "model.d_ff=16"), FAMILY[name]
    assert type(net) is Transformer
    assert {type(m) for m in (net.encoder[0].mixer, net.decoder[0].mixer, net.decoder[0].cross)} == {mixer}
    assert (net.embed.positions is not None, len(net.distil) > 0, net.split is not None) == switches


@pytest.mark.parametrize("mixer", ["prob_sparse", "auto_correlation", "fourier"])
def test_encoder_only_models_take_the_familys_mixers(conf, mixer):
    small = [f"model/mixer={mixer}", "model.d_model=16", "model.heads=2"]
    assert build(conf, "model=series_encoder", "data.horizon=96", *small)(torch.randn(2, 96, 7)).shape == (2, 96, 7)
    assert build(conf, "model=series_transformer", *small)(torch.randn(2, 50, 7)).shape == (2, 3)


def test_a_preset_may_set_an_option_of_its_mixer_and_the_command_line_may_take_it_back(conf):
    assert build(conf, "preset=small").blocks[0].mixer.forwards.d_state == 2
    net = build(conf, "preset=small", "model/mixer=attention", "~model.mixer.d_state")
    assert type(net.blocks[0].mixer) is Attention


def test_mixers_take_heads_and_dropout_from_the_model(conf):
    mixer = build(conf, "model.heads=4", "model.dropout=0.25").blocks[1].mixer
    assert (mixer.heads, mixer.dropout) == (4, 0.25)


def test_the_ffn_is_as_wide_as_the_model_unless_told(conf):
    assert build(conf, "model.d_model=64").blocks[0].ffn.up.out_features == 64
    assert build(conf, "model.d_ff=48").blocks[0].ffn.up.out_features == 48

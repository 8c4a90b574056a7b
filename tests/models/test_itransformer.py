"""iTransformer and its Mamba variant: what they see, in which order, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kernels
from models.itransformer import ITransformer
from models.mixers.attention import Attention
from models.mixers.flow import FlowAttention
from models.mixers.mamba import BiMamba, Mamba
from models.mixers.none import NoMixing

MIXERS = {
    "attention": partial(Attention, heads=2),
    "flow": partial(FlowAttention, heads=2),
    "mamba": partial(Mamba, d_state=2),
    "bimamba": partial(BiMamba, d_state=2),
    "none": NoMixing,
}
EQUIVARIANT = ("attention", "flow", "none")


def model(mixer="attention", seed=0, **options):
    torch.manual_seed(seed)
    return ITransformer(24, 6, d_model=16, depth=2, heads=2, d_ff=32, mixer=MIXERS[mixer], **options).eval()


def batch(variates=5, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(3, 24, variates, generator=rng), torch.rand(3, 24, 4, generator=rng) - 0.5


@pytest.mark.parametrize("mixer", MIXERS)
def test_any_mixer_forecasts_every_variate_and_every_parameter_learns(mixer):
    net = model(mixer).train()
    y = net(*batch())
    assert y.shape == (3, 6, 5)
    y.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] in (
        [],
        ["blocks.0.mixer.k.bias", "blocks.1.mixer.k.bias"],  # softmax does not see a shift of all keys
    )


@pytest.mark.parametrize("mixer", MIXERS)
def test_only_mixers_without_order_permute_with_the_variates(mixer):
    net, (x, marks) = model(mixer), batch()
    order = torch.tensor([3, 0, 4, 2, 1])
    gap = (net(x[:, :, order], marks) - net(x, marks)[:, :, order]).abs().max()
    assert gap < 1e-5 if mixer in EQUIVARIANT else gap > 1e-3


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("variates", [1, 2, 9])
def test_the_number_of_variates_may_change_after_training(mixer, variates):
    assert model(mixer)(*batch(variates)).shape == (3, 6, variates)


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_window_constant_in_time_stays_finite_forward_and_backward(mixer):
    net, (x, marks) = model(mixer), batch()
    x[:, :, 2] = 7.0
    x[0] = 0.0
    y = net(x, marks)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("mixer", MIXERS)
def test_evaluation_draws_no_random_numbers_and_repeats_bit_for_bit(mixer):
    net = model(mixer)
    state = torch.get_rng_state()
    first = net(*batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, net(*batch()))


def test_attention_mixes_variates_and_no_mixing_does_not():
    x, marks = batch()
    other = x.clone()
    other[:, :, 0] += torch.linspace(0, 3, 24)[None, :]
    for mixer, moved in (("attention", True), ("none", False)):
        net = model(mixer)
        change = (net(x, marks) - net(other, marks)).abs().amax((0, 1))
        assert change[0] > 1e-3
        assert bool((change[1:] > 1e-6).all()) == moved
        assert bool((change[1:] == 0).all()) == (not moved)


def test_marks_are_tokens_seen_by_the_variates_and_not_forecast():
    net, (x, marks) = model(), batch()
    assert net(x).shape == net(x, marks).shape
    assert (net(x) - net(x, marks)).abs().max() > 1e-3
    assert torch.equal(net(x, marks[:, :, :0]), net(x))
    assert net.blocks[0].mixer.weights(torch.randn(1, 9, 16)).shape == (1, 2, 9, 9)


def test_marks_are_not_normalised_and_come_last():
    net, (x, marks) = model(), batch()
    seen = []
    net.embed.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    net(x, marks)
    tokens = seen[0]
    assert torch.equal(tokens[:, 5:], marks.transpose(1, 2))
    assert_close(tokens[:, :5].mean(-1), torch.zeros(3, 5), atol=1e-5, rtol=0)
    assert_close(tokens[:, :5].std(-1, correction=0), torch.ones(3, 5), atol=1e-3, rtol=0)


def test_use_norm_makes_the_forecast_follow_level_and_scale():
    x, marks = batch()
    net = model()
    assert_close(net(10 * x + 5, marks), 10 * net(x, marks) + 5, rtol=1e-3, atol=1e-3)
    plain = model(use_norm=False)
    assert (plain(10 * x + 5, marks) - (10 * plain(x, marks) + 5)).abs().max() > 1


def test_mixer_none_given_is_attention_with_the_models_heads_and_dropout():
    net = ITransformer(24, 6, d_model=16, heads=4, dropout=0.3)
    mixer = net.blocks[0].mixer
    assert (type(mixer), mixer.heads, mixer.dropout) == (Attention, 4, 0.3)
    assert isinstance(net.norm, nn.LayerNorm)


def test_a_window_of_another_length_is_refused_with_both_lengths():
    with pytest.raises(ValueError, match=r"the window has 30 steps, the model was built for lookback=24"):
        model()(torch.zeros(1, 30, 5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lookback": 0}, r"lookback=0 must be a whole number of at least 1"),
        ({"horizon": -1}, r"horizon=-1 must be a whole number of at least 1"),
        ({"d_model": 16.0}, r"d_model=16.0 must be a whole number"),
        (
            {"d_model": 100, "heads": 8},
            r"d_model=100 is not divisible by heads=8: choose heads from 1, 2, 4, 5, 10, 20",
        ),
        ({"heads": 0}, r"heads=0 must be a whole number of at least 1"),
        ({"depth": 0}, r"depth=0 must be a whole number of at least 1"),
        ({"depth": True}, r"depth=True must be a whole number"),
        ({"d_ff": "64"}, r"d_ff='64' must be a whole number"),
        ({"dropout": 1.0}, r"dropout=1.0 must be a number in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout=-0.1 must be a number in \[0, 1\)"),
        ({"dropout": None}, r"dropout=None must be a number in \[0, 1\)"),
        ({"use_norm": "no"}, r"use_norm='no' must be true or false"),
        ({"mixer": partial(Mamba, d_state=0)}, r"d_state=0 must be a whole number of at least 1"),
        ({"mixer": "bimamba"}, r"mixer='bimamba' must build a module from the width"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_at_construction(wrong, message):
    with pytest.raises(ValueError, match=message):
        ITransformer(**({"lookback": 24, "horizon": 6} | wrong))


@pytest.mark.parametrize("mixer", ["attention", "bimamba"])
def test_torch_compile_traces_a_block_whole_once_the_backends_are_chosen(mixer):
    block, h = model(mixer).blocks[0], torch.randn(2, 3, 16)
    kernels.choices("cpu")
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    assert_close(compiled(h), block(h))

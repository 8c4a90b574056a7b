"""The encoder-decoder forecaster."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from models.mixers.mamba import BiMamba
from models.transformer import Transformer

SMALL = {"d_model": 16, "d_ff": 32, "heads": 2, "label_len": 8}


def model(variates=3, marks=4, **options):
    torch.manual_seed(0)
    return Transformer(24, 6, variates, marks, **(SMALL | options)).eval()


def batch(variates=3):
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, *shape, generator=rng) for shape in ((24, variates), (24, 4), (6, 4)))


@pytest.mark.parametrize("options", [{}, {"use_norm": True}, {"label_len": 0}, {"label_len": 24}, {"decoder_depth": 2}])
def test_it_forecasts_every_variate_and_every_parameter_learns(options):
    net = model(**options).train()
    y = net(*batch())
    assert y.shape == (2, 6, 3)
    y.square().mean().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    unseen = ["decoder_embed.values.weight"] if net.label_len == 0 else []  # the decoder's values are all zeros
    assert [name for name in idle if not name.endswith("k.bias")] == unseen  # softmax ignores a shift of all keys


def test_the_decoder_sees_the_last_known_steps_and_zeros_with_the_time_features_of_both():
    net, (x, marks, future) = model(), batch()
    seen = []
    net.decoder_embed.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    net(x, marks, future)
    steps, features = seen[0]
    assert torch.equal(steps, torch.cat((x[:, -8:], torch.zeros(2, 6, 3)), dim=1))
    assert torch.equal(features, torch.cat((marks[:, -8:], future), dim=1))


def test_use_norm_makes_the_forecast_follow_level_and_scale():
    x, marks, future = batch()
    net, plain = model(use_norm=True), model()
    assert_close(net(10 * x + 5, marks, future), 10 * net(x, marks, future) + 5, rtol=1e-3, atol=1e-3)
    assert (plain(10 * x + 5, marks, future) - (10 * plain(x, marks, future) + 5)).abs().max() > 1


def test_evaluation_draws_no_random_numbers_and_repeats_bit_for_bit():
    net = model(dropout=0.3)
    state = torch.get_rng_state()
    first = net(*batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, net(*batch()))


def test_it_runs_without_time_features_and_with_another_encoder_mixer():
    assert model(marks=0)(batch()[0]).shape == (2, 6, 3)
    net = model(mixer=partial(BiMamba, d_state=2))
    assert isinstance(net.encoder[0].mixer, BiMamba)
    assert net(*batch()).shape == (2, 6, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lookback": 0}, r"lookback=0 must be"),
        ({"variates": 0}, r"variates=0 must be"),
        ({"marks": -1}, r"marks=-1 must be a whole number of at least 0"),
        ({"label_len": 25}, r"label_len=25 is longer than lookback=24: choose 0 to 24"),
        ({"depth": 0}, r"depth=0 must be"),
        ({"decoder_depth": 0}, r"decoder_depth=0 must be"),
        ({"heads": 3}, r"d_model=16 is not divisible by heads=3"),
        ({"dropout": 1}, r"dropout=1 must be a number in \[0, 1\)"),
        ({"use_norm": None}, r"use_norm=None must be true or false"),
        ({"mixer": "flow"}, r"mixer='flow' must build a module from the width"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused_at_construction(wrong, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**({"lookback": 24, "horizon": 6, "variates": 3, "marks": 4} | SMALL | wrong))


def test_a_batch_that_does_not_fit_is_refused_in_words():
    x, marks, future = batch()
    with pytest.raises(ValueError, match=r"30 steps of 3 variates, the model was built for lookback=24 and variates=3"):
        model()(torch.zeros(1, 30, 3), marks, future)
    with pytest.raises(ValueError, match=r"marks=4 time features, but the batch lacks them"):
        model()(x, marks)

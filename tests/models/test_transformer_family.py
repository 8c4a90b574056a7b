"""Informer, Autoformer, FEDformer: what the encoder-decoder's switches and mixers make of it."""

import hashlib
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from models.layers.blocks import Distil, EncoderBlock, SeasonalDecoderBlock, bind, distilled, takes_context
from models.layers.decomposition import Season, SeasonNorm, SeriesDecomposition
from models.mixers.attention import Attention
from models.mixers.auto_correlation import AutoCorrelation
from models.mixers.flow import FlowAttention
from models.mixers.fourier import FourierMixer
from models.mixers.lsh import LshAttention
from models.mixers.mamba import BiMamba, Mamba
from models.mixers.none import NoMixing
from models.mixers.prob_sparse import ProbSparse
from models.transformer import Transformer

SMALL = {"d_model": 16, "d_ff": 32, "heads": 2, "label_len": 8, "moving_average": 5}
MIXERS = {
    "attention": partial(Attention, heads=2),
    "flow": partial(FlowAttention, heads=2),
    "prob_sparse": partial(ProbSparse, heads=2, factor=1),
    "auto_correlation": AutoCorrelation,
    "fourier": partial(FourierMixer, heads=2, modes=4),
    "lsh": partial(LshAttention, heads=2),
    "mamba": partial(Mamba, d_state=2),
    "bimamba": partial(BiMamba, d_state=2),
    "none": NoMixing,
}
AUTOFORMER = {"mixer": AutoCorrelation, "positions": False, "decomposition": True}


def model(**options):
    torch.manual_seed(0)
    return Transformer(24, 6, 3, 4, **(SMALL | options))


def batch(size=2):
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(size, *shape, generator=rng) for shape in ((24, 3), (24, 4), (6, 4)))


def average(x_BTC, window):
    """The moving average by hand."""
    side, T = window // 2, x_BTC.shape[1]
    steps = [[min(max(t + i, 0), T - 1) for i in range(-side, side + 1)] for t in range(T)]
    return torch.stack([x_BTC[:, around].mean(1) for around in steps], 1)


def test_the_plain_transformer_starts_from_the_weights_that_it_always_had():
    digest = hashlib.sha256()
    for name, value in model(moving_average=25).state_dict().items():
        digest.update(f"{name} {(value * 1e4).round().int().tolist()}".encode())
    assert (
        digest.hexdigest() == "9f310423ed35270cf1a3d73f9d37c105b9c2203d9ba0ed7da1a19820461062c6"
    )  # of the code before it had a family


@pytest.mark.parametrize(
    "options", [{}, {"decomposition": True}, {"distil": True}], ids=["plain", "decomposed", "distil"]
)
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("size", [1, 2])
def test_every_mixer_forecasts_and_learns_in_every_wiring(name, options, size):
    net = model(mixer=MIXERS[name], **options)
    y = net(*batch(size))
    assert y.shape == (size, 6, 3)
    y.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.embed.values.weight.grad.abs().max() > 0
    net.eval()
    state = torch.get_rng_state()
    assert torch.equal(net(*batch(size)), net(*batch(size)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_without_a_context_leaves_cross_attention_to_attention(name):
    block = model(mixer=MIXERS[name]).decoder[0]
    alone = name in ("lsh", "mamba", "bimamba", "none")
    assert type(block.cross) is (Attention if alone else type(block.mixer))
    assert takes_context(MIXERS[name]) is not alone


@pytest.mark.parametrize("mixer", [partial(Attention, heads=2), partial(ProbSparse, heads=2)], ids=["full", "prob"])
def test_only_the_decoders_own_tokens_are_causal(mixer):
    net = model(mixer=mixer)
    assert [net.encoder[0].mixer.causal, net.decoder[0].mixer.causal, net.decoder[0].cross.causal] == [
        False,
        True,
        False,
    ]


def test_bind_gives_a_mixer_the_facts_that_it_takes_and_no_others():
    mixer = bind(partial(FourierMixer, heads=2, modes=4), causal=True, length=12, context_length=10)(8)
    assert (mixer.length, mixer.context_length) == (12, 10)
    assert isinstance(bind(NoMixing, causal=True, length=12)(8), NoMixing)


def test_fourier_weights_are_one_set_for_all_encoder_blocks_and_load_into_a_new_model():
    net = model(mixer=MIXERS["fourier"], depth=3, decoder_depth=2).eval()
    first, *others = (block.mixer.maps for block in net.encoder)
    assert all(maps is first for maps in others)
    assert net.decoder[0].cross.maps is net.decoder[1].cross.maps is not net.decoder[1].mixer.maps
    torch.manual_seed(9)
    other = Transformer(
        24, 6, 3, 4, mixer=partial(FourierMixer, heads=2, modes=4, seed=7), depth=3, decoder_depth=2, **SMALL
    )
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(*batch()), net(*batch()))


def test_autoformer_forecasts_differently_in_training_and_evaluation():
    net = model(**AUTOFORMER, dropout=0.0)
    assert (net.train()(*batch()) - net.eval()(*batch())).abs().max() > 1e-5


def test_without_positions_the_embedding_of_equal_steps_is_equal():
    x, marks, _ = torch.ones(1, 24, 3), torch.ones(1, 24, 4), None
    embedded = model(**AUTOFORMER).eval().embed(x, marks)
    assert_close(embedded[:, 1:], embedded[:, :-1])
    assert (model().eval().embed(x, marks).diff(dim=1).abs().amax(-1) > 1e-3).all()


def test_the_decomposed_decoder_starts_from_season_and_trend_of_the_window():
    net, (x, marks, future) = model(**AUTOFORMER).eval(), batch()
    seen = []
    net.decoder_embed.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    net(x, marks, future)
    season = x - average(x, 5)
    assert_close(seen[0][0], torch.cat((season[:, -8:], torch.zeros(2, 6, 3)), 1))
    assert torch.equal(seen[0][1], torch.cat((marks[:, -8:], future), 1))


def test_a_decomposed_model_that_adds_nothing_forecasts_the_mean_of_the_window():
    net, (x, marks, future) = model(**AUTOFORMER).eval(), batch()
    for layer in (net.project, net.decoder[0].trend):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    assert_close(net(x, marks, future), x.mean(1, keepdim=True).expand(-1, 6, -1))


def test_the_trends_that_a_decoder_block_removes_are_added_to_the_forecast():
    net, inputs = model(**AUTOFORMER).eval(), batch()
    removed = []
    net.decoder[0].register_forward_hook(lambda module, args, output: removed.append(output[1]))
    y = net(*inputs)
    nn.init.zeros_(net.decoder[0].trend.weight)
    assert_close(y - net(*inputs), removed[0][:, -6:], rtol=1e-4, atol=1e-5)


def test_an_encoder_block_with_season_keeps_no_trend():
    torch.manual_seed(0)
    block, x = (
        EncoderBlock(8, 16, AutoCorrelation, norm=lambda _: Season(5, 12), bias=False).eval(),
        torch.randn(2, 12, 8),
    )
    h = x + block.mixer(x)
    h = h - average(h, 5)
    ffn = F.linear(F.gelu(F.linear(h, block.ffn.up.weight)), block.ffn.down.weight)
    assert_close(block(x), h + ffn - average(h + ffn, 5))
    assert block.ffn.up.bias is None and block.ffn.down.bias is None


def test_a_seasonal_decoder_block_is_its_three_splits_and_a_circular_convolution():
    torch.manual_seed(0)
    mixers = (partial(Attention, heads=2), partial(Attention, heads=2))
    block = SeasonalDecoderBlock(8, 16, *mixers, 0.0, 3, SeriesDecomposition(5, 12)).eval()
    x, memory = torch.randn(2, 12, 8), torch.randn(2, 9, 8)
    trends, h = [], x
    for part in (block.mixer, lambda h: block.cross(h, memory), block.ffn):
        h = h + part(h)
        trends.append(average(h, 5))
        h = h - trends[-1]
    removed = sum(trends)
    around = torch.stack((removed.roll(1, 1), removed, removed.roll(-1, 1)), -1)  # steps t - 1, t, t + 1
    season, trend = block(x, memory)
    assert_close(season, h)
    assert_close(trend, torch.einsum("btdk,cdk->btc", around, block.trend.weight))


def test_season_norm_is_layer_norm_without_its_mean_over_time():
    x, norm = torch.randn(2, 7, 6), SeasonNorm(6)
    z = F.layer_norm(x, (6,))
    assert_close(norm(x), z - z.mean(1, keepdim=True))


@pytest.mark.parametrize("T", [2, 3, 9, 24, 25])
def test_distil_is_convolution_batch_norm_elu_and_max_pool(T):
    torch.manual_seed(0)
    layer, x = Distil(4), torch.randn(3, T, 4)
    conv = nn.Conv1d(4, 4, 3, padding=2, padding_mode="circular")
    conv.load_state_dict(layer.conv.state_dict())
    steps = nn.Sequential(conv, nn.BatchNorm1d(4), nn.ELU(), nn.MaxPool1d(3, 2, 1))
    y = layer(x)
    assert_close(y, steps(x.transpose(1, 2)).transpose(1, 2))
    assert y.shape == (3, distilled(T), 4)


def test_a_deep_encoder_distils_down_to_a_few_tokens_and_still_runs():
    net = model(distil=True, depth=8, mixer=MIXERS["prob_sparse"])
    lengths = []
    for block in net.encoder:
        block.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    assert net(*batch()).isfinite().all()
    assert lengths == [24, 13, 8, 5, 4, 3, 3, 3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"moving_average": 25}, r"lookback=24 is not above moving_average=25: choose a longer look-back"),
        ({"moving_average": 4}, r"moving_average=4 must be odd"),
        ({"moving_average": 0}, r"moving_average=0 must be"),
        ({"moving_average": 15}, r"moving_average=15 must be odd.* at most the 14 steps"),  # 8 known and 6 ahead
        ({"distil": True, "moving_average": 13, "depth": 3}, r"moving_average=13 .* at most the 8 steps"),
        ({"decomposition": 1}, r"decomposition=1 must be true or false"),
        ({"positions": "no"}, r"positions='no' must be true or false"),
        ({"distil": None}, r"distil=None must be true or false"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_with_the_numbers(wrong, message):
    with pytest.raises(ValueError, match=message):
        model(**({"decomposition": True} | wrong))

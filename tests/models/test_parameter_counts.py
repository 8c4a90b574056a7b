"""Exact parameter counts against the published ones, on the meta device."""

from functools import partial

import pytest
import torch

from models.itransformer import ITransformer
from models.linear import DLinear, Linear, NLinear
from models.mixers.attention import Attention
from models.mixers.auto_correlation import AutoCorrelation
from models.mixers.flow import FlowAttention
from models.mixers.fourier import FourierMixer
from models.mixers.mamba import BiMamba, Mamba
from models.mixers.prob_sparse import ProbSparse
from models.naive import LastValue, SeasonalNaive
from models.transformer import Transformer


def count(build, *args, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in build(*args, **options).parameters())


ITRANSFORMER = {  # arXiv 2310.06625, look-back 96: (horizons, D, depth, published counts)
    "etth1_short": ((96, 192), 256, 2, (841568, 866240)),
    "etth1_long": ((336, 720), 512, 2, (3379024, 3576016)),
    "etth2": ((96, 192, 336, 720), 128, 2, (224224, 236608, 255184, 304720)),
    "weather": ((96, 192, 336, 720), 512, 3, (4833888, 4883136, 4957008, 5154000)),
    "traffic": ((96, 192, 336, 720), 512, 4, (6411872, 6461120, 6534992, 6731984)),
    "solar": ((96, 192, 336, 720), 512, 2, (3255904, 3305152, 3379024, 3576016)),
    "pems03": ((12, 24, 48, 96), 512, 4, (6368780, 6374936, 6387248, 6411872)),
    "pems04": ((12, 24, 48, 96), 1024, 4, (25320460, 25332760, 25357360, 25406560)),
    "pems07_short": ((12, 24), 512, 2, (3212812, 3218968)),
}

S_MAMBA = {  # arXiv 2403.11144, look-back 96: (horizons, D, depth, n, counts)
    "etth1": ((96, 192, 336, 720), 256, 2, 2, (1145696, 1170368, 1207376, 1306064)),
    "ettm1_long": ((192, 336, 720), 128, 2, 2, (314944, 333520, 383056)),
    "exchange": ((96, 192, 336, 720), 128, 2, 32, (348640, 361024, 379600, 429136)),
    "weather": ((96, 192, 336, 720), 512, 3, 2, (6631008, 6680256, 6754128, 6951120)),
    "ecl_short": ((96,), 512, 3, 16, (6760032,)),
    "ecl_long": ((192, 336, 720), 512, 3, 32, (6956736, 7030608, 7227600)),
    "traffic": ((96, 192, 336, 720), 512, 4, 32, (9176672, 9225920, 9299792, 9496784)),
    "solar": ((96, 192, 336, 720), 512, 2, 32, (4638304, 4687552, 4761424, 4958416)),
}


@pytest.mark.parametrize("row", ITRANSFORMER.values(), ids=ITRANSFORMER)
def test_itransformer_has_the_published_number_of_parameters(row):
    horizons, width, depth, published = row
    ours = tuple(count(ITransformer, 96, h, d_model=width, depth=depth, d_ff=width) for h in horizons)
    assert ours == published


@pytest.mark.parametrize("row", S_MAMBA.values(), ids=S_MAMBA)
def test_s_mamba_has_the_number_of_parameters_of_its_equations(row):
    horizons, width, depth, n, published = row
    mixer = partial(BiMamba, d_state=n)
    ours = tuple(count(ITransformer, 96, h, d_model=width, depth=depth, d_ff=width, mixer=mixer) for h in horizons)
    assert ours == published


@pytest.mark.parametrize("D", [32, 100, 128])
@pytest.mark.parametrize("n", [1, 2, 32])
def test_a_mamba_block_has_the_parameters_of_its_formula(D, n):
    r = -(-D // 16)
    one = 2 * D**2 + 3 * D + D * (r + 2 * n) + r * D + D + D * n + D + D**2
    assert count(Mamba, D, d_state=n) == one
    assert count(BiMamba, D, d_state=n) == 2 * one


def test_attention_and_flow_attention_have_four_linears_with_bias():
    assert count(Attention, 64) == count(FlowAttention, 64) == 4 * (64**2 + 64)


@pytest.mark.parametrize(
    ("horizon", "single", "double"),
    [(96, 32352, 64704), (192, 64704, 129408), (336, 113232, 226464), (720, 242640, 485280)],
)
def test_linear_models_have_the_published_number_of_parameters(horizon, single, double):
    assert count(Linear, 336, horizon, 7) == count(NLinear, 336, horizon, 7) == single
    assert count(DLinear, 336, horizon, 7) == double
    assert count(Linear, 336, horizon, 7, individual=True) == 7 * single
    assert count(DLinear, 336, horizon, 7, individual=True) == 7 * double


def test_linear_models_have_the_published_number_of_parameters_at_other_look_backs():
    assert count(DLinear, 96, 720, 321) == 139680
    assert (count(NLinear, 104, 24, 7), count(DLinear, 104, 24, 7)) == (2520, 5040)


@pytest.mark.parametrize(("variates", "published"), [(7, 10540039), (321, 11665729)], ids=["ett", "electricity"])
def test_transformer_has_the_published_number_of_parameters(variates, published):
    assert count(Transformer, 96, 96, variates, marks=4) == published


AUTOFORMER = {"positions": False, "decomposition": True}


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"mixer": ProbSparse, "distil": True}, 11328007),
        (AUTOFORMER | {"mixer": AutoCorrelation}, 10535943),
        ({"decomposition": True}, 10535943),
    ],
    ids=["informer", "autoformer", "decomposed_transformer"],
)
def test_the_transformers_family_has_the_published_number_of_parameters(options, published):
    assert count(Transformer, 96, 96, 7, marks=4, **options) == published


@pytest.mark.parametrize(("lookback", "horizon", "modes"), [(96, 96, (48, 64, 64)), (60, 24, (30, 36, 36))])
def test_fedformer_is_autoformer_and_complex_matrices_for_three_fourier_blocks(lookback, horizon, modes):
    official, plain = (
        count(Transformer, lookback, horizon, 7, 4, **AUTOFORMER, mixer=partial(FourierMixer, quirk=quirk))
        for quirk in ("official", "none")
    )
    assert official == 10535943 + sum(2 * 8 * (512 // 8) ** 2 * M for M in modes)
    assert official - plain == 7 * (512**2 + 512)  # keys and values of 3 self blocks, values of the cross block


def test_the_small_transformer_of_the_laptop_run_has_the_measured_number_of_parameters():
    assert count(Transformer, 96, 96, 7, marks=4, d_model=32, d_ff=64, heads=4) == 31879


def test_naive_forecasters_have_no_parameters():
    assert count(LastValue, 96) == count(SeasonalNaive, 96, 24, 96) == 0

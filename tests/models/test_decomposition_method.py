"""The decomposition as a method around any forecaster."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close

from models.itransformer import ITransformer
from models.linear import DLinear, Linear, NLinear
from models.methods.decomposition import Decomposition
from models.naive import LastValue
from models.transformer import Transformer

CONFIG = Path(__file__).parents[2] / "conf" / "method" / "decomposition.yaml"
L, H, N = 24, 6, 3
SMALL = {"d_model": 16, "heads": 2, "d_ff": 32}
FORECASTERS = {
    "last_value": lambda: LastValue(H),
    "linear": lambda: Linear(L, H, N),
    "nlinear": lambda: NLinear(L, H, N, individual=True),
    "dlinear": lambda: DLinear(L, H, N, moving_average=7),
    "itransformer": lambda: ITransformer(L, H, **SMALL),
    "transformer": lambda: Transformer(L, H, N, 4, label_len=8, **SMALL),
    "autoformer": lambda: Transformer(L, H, N, 4, label_len=8, decomposition=True, moving_average=7, **SMALL),
}


def batch(size=2):
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(size, *shape, generator=rng) for shape in ((L, N), (L, 4), (H, 4)))


@pytest.mark.parametrize("name", FORECASTERS)
def test_the_forecaster_gets_the_season_and_the_trend_is_mapped_and_added(name):
    torch.manual_seed(0)
    forecaster = FORECASTERS[name]().eval()
    net, (x, marks, future) = Decomposition(L, H, 5).apply(forecaster), batch()
    trend = torch.stack([x[:, [min(max(t + i, 0), L - 1) for i in range(-2, 3)]].mean(1) for t in range(L)], 1)
    mapped = torch.einsum("hl,bln->bhn", net.trend.weight, trend) + net.trend.bias[:, None]
    assert_close(net(x, marks, future), forecaster(x - trend, marks, future) + mapped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORECASTERS)
def test_everything_that_can_learn_learns(name):
    torch.manual_seed(0)
    net = Decomposition(L, H, 5).apply(FORECASTERS[name]())
    net(*batch()).square().mean().backward()
    assert net.trend.weight.grad.abs().max() > 0
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_it_takes_as_many_variates_as_its_forecaster():
    free, tied = (Decomposition(L, H, 5).apply(FORECASTERS[name]()) for name in ("itransformer", "transformer"))
    assert free.any_variates and not tied.any_variates
    assert free(torch.zeros(2, L, 8)).shape == (2, H, 8)


def test_its_config_takes_the_lengths_from_the_data():
    config = OmegaConf.create({"data": {"lookback": 48, "horizon": H}, "method": OmegaConf.load(CONFIG)})
    net = instantiate(config.method.decomposition).apply(LastValue(H))
    assert net(torch.zeros(2, 48, N)).shape == (2, H, N)


def test_it_adds_one_linear_map_of_parameters():
    with torch.device("meta"):
        net = Decomposition(336, 96, 25).apply(LastValue(96))
    assert sum(p.numel() for p in net.parameters()) == 336 * 96 + 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((24, 6, 25), r"lookback=24 is not above moving_average=25"),
        ((24, 6, 24), r"lookback=24 is not above moving_average=24"),
        ((24, 6, 0), r"moving_average=0 must be a whole number"),
        ((24, 0, 5), r"horizon=0 must be a whole number of at least 1"),
        ((24, 6, 4), r"moving_average=4 must be odd"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Decomposition(*arguments).apply(LastValue(6))

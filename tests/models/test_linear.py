"""The linear family against its formulas, one weight at a time."""

import pytest
import torch
from torch.testing import assert_close

from models.linear import DLinear, Linear, NLinear
from models.naive import LastValue, SeasonalNaive

L, H, N = 12, 5, 3
X = torch.randn(4, L, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def build(cls, *, individual=False, seed=0, **options):
    torch.manual_seed(seed)
    return cls(L, H, N, individual=individual, **options).double()


def by_loop(layer, series, n):
    """W x + b of one variate's series."""
    weight, bias = (layer.weight[n], layer.bias[n]) if layer.individual else (layer.weight, layer.bias)
    return torch.stack([(weight[h] * series).sum() + bias[h] for h in range(H)])


def moving_average(series, window):
    side = window // 2
    clipped = [
        [series[min(max(t + k, 0), len(series) - 1)] for k in range(-side, side + 1)] for t in range(len(series))
    ]
    return torch.stack([sum(values) / window for values in clipped])


@pytest.mark.parametrize("individual", [False, True], ids=["shared", "individual"])
def test_linear_nlinear_and_dlinear_are_their_formulas(individual):
    linear, nlinear = build(Linear, individual=individual), build(NLinear, individual=individual)
    dlinear = build(DLinear, individual=individual, moving_average=5)
    for b in range(2):
        for n in range(N):
            x = X[b, :, n]
            assert_close(linear(X)[b, :, n], by_loop(linear.map, x, n))
            assert_close(nlinear(X)[b, :, n], by_loop(nlinear.map, x - x[-1], n) + x[-1])
            trend = moving_average(x, 5)
            formula = by_loop(dlinear.season, x - trend, n) + by_loop(dlinear.trend, trend, n)
            assert_close(dlinear(X)[b, :, n], formula)


@pytest.mark.parametrize("cls", [Linear, NLinear, DLinear])
def test_individual_equals_one_model_per_variate(cls):
    options = {"moving_average": 5} if cls is DLinear else {}
    net = build(cls, individual=True, **options)
    alone = cls(L, H, 1, **options).double()
    for n in range(N):
        alone.load_state_dict({name: value[n] for name, value in net.state_dict().items()})
        assert_close(net(X)[:, :, n : n + 1], alone(X[:, :, n : n + 1]))


@pytest.mark.parametrize("cls", [Linear, NLinear])
@pytest.mark.parametrize("individual", [False, True], ids=["shared", "individual"])
def test_default_init_is_uniform_within_the_root_of_the_look_back_and_ones_is_its_inverse(cls, individual):
    torch.manual_seed(0)
    weight = cls(100, 50, 4, individual).map.weight
    assert 0.095 < weight.abs().max() <= 0.1
    assert weight.mean().abs() < 0.005
    ones = cls(100, 50, 4, individual, init="ones").map
    assert (ones.weight == 1 / 100).all()
    assert ones.bias.abs().max() > 0


def test_shared_weights_take_any_number_of_variates_and_individual_ones_only_theirs():
    wider = torch.zeros(2, L, N + 2, dtype=torch.float64)
    assert build(Linear)(wider).shape == (2, H, N + 2)
    with pytest.raises(ValueError, match=r"the data has 5 variates, but individual=true ties .* variates=3"):
        build(Linear, individual=True)(wider)


def test_the_last_value_carries_no_gradient_in_nlinear():
    x = X.clone().requires_grad_()
    build(NLinear)(x)[0, 0, 0].backward()
    weight_only = build(NLinear).map.weight[0]
    assert_close(x.grad[0, :, 0], weight_only)


def test_naive_forecasts_repeat_the_last_value_and_the_last_season():
    x = torch.arange(float(L))[None, :, None].expand(2, L, N)
    assert LastValue(4)(x)[0, :, 0].tolist() == [11.0] * 4
    assert SeasonalNaive(7, 3, L)(x)[1, :, 2].tolist() == [9.0, 10.0, 11.0, 9.0, 10.0, 11.0, 9.0]
    assert SeasonalNaive(2, L, L)(x)[0, :, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("net", [build(Linear), build(DLinear, moving_average=5), LastValue(H), SeasonalNaive(H, 3, L)])
def test_time_features_are_taken_and_ignored(net):
    assert torch.equal(net(X), net(X, torch.ones(4, L, 4), torch.ones(4, H, 4)))


@pytest.mark.parametrize("window", [4, 1, 13, 0, 2.5], ids=lambda window: f"window_{window}")
def test_a_moving_average_that_does_not_fit_is_refused_with_the_range(window):
    with pytest.raises(ValueError, match=rf"moving_average={window} must be"):
        DLinear(L, H, N, moving_average=window)


@pytest.mark.parametrize(
    ("build_wrong", "message"),
    [
        (lambda: Linear(0, H, N), r"lookback=0 must be a whole number of at least 1"),
        (lambda: NLinear(L, "5", N), r"horizon='5' must be a whole number"),
        (lambda: DLinear(L, H, 0, moving_average=5), r"variates=0 must be"),
        (lambda: Linear(L, H, N, individual=1), r"individual=1 must be true or false"),
        (lambda: Linear(L, H, N, init="zeros"), r"init='zeros' is unknown: choose from default, ones"),
        (lambda: LastValue(0), r"horizon=0 must be"),
        (lambda: SeasonalNaive(5, 24, 12), r"lookback=12 is shorter than season=24.*set data.lookback to 24 or more"),
        (lambda: SeasonalNaive(5, 0, 12), r"season=0 must be"),
        (lambda: build(Linear)(X[:, 1:]), r"the window has 11 steps, the model was built for lookback=12"),
    ],
    ids=["lookback", "horizon", "variates", "individual", "init", "last_value", "short_window", "season", "window"],
)
def test_wrong_values_are_refused_with_a_remedy(build_wrong, message):
    with pytest.raises(ValueError, match=message):
        build_wrong()

"""ForecastErrors: the same whatever the batches, and the values of the definitions."""

import numpy as np
import pytest
import torch

from tasks.ts_forecast.metrics import ForecastErrors

W, H, N = 11, 4, 3


@pytest.fixture
def pairs():
    """Forecasts and truths (W, H, N)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(W, H, N, generator=generator), torch.randn(W, H, N, generator=generator)


@pytest.fixture
def scale():
    return {"mean": torch.tensor([5.0, -3.0, 0.0]), "std": torch.tensor([2.0, 10.0, 0.5]), "naive_scale": torch.ones(N)}


def score(forecast, truth, sizes, **scale):
    errors = ForecastErrors(H, N, **scale)
    for f, y in zip(forecast.split(sizes), truth.split(sizes), strict=True):
        errors.update(f, y)
    return errors


@pytest.mark.parametrize("sizes", [[4, 4, 3], [10, 1], [1] * 11])
def test_unequal_batches_give_the_same_as_one_batch(pairs, scale, sizes):
    one, many = score(*pairs, [W], **scale), score(*pairs, sizes, **scale)
    for name, value in one.compute().items():
        assert float(many.compute()[name]) == pytest.approx(float(value), rel=1e-5), name
    assert {k: pytest.approx(v, rel=1e-5) for k, v in one.details().items()} == many.details()


def test_scores_follow_their_definitions(pairs, scale):
    scale["naive_scale"] = torch.tensor([1.0, 4.0, 0.25])
    forecast, truth = (v.double().numpy() for v in pairs)
    f, y = (v * scale["std"].numpy() + scale["mean"].numpy() for v in (forecast, truth))
    expected = {
        "mse": ((forecast - truth) ** 2).mean(),
        "mae": abs(forecast - truth).mean(),
        "mse_original": ((f - y) ** 2).mean(),
        "mae_original": abs(f - y).mean(),
        "smape": np.mean(2 * abs(f - y) / (abs(f) + abs(y))),
        "mase": np.mean(abs(f - y).mean((0, 1)) / scale["naive_scale"].numpy()),
    }
    found = {name: float(value) for name, value in score(*pairs, [4, 4, 3], **scale).compute().items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_smape_of_an_exact_forecast_is_zero_even_at_zero_and_two_at_most():
    scale = {"mean": torch.zeros(N), "std": torch.ones(N), "naive_scale": torch.ones(N)}
    zeros, ones = torch.zeros(2, H, N), torch.ones(2, H, N)
    assert score(zeros, zeros, [2], **scale).compute()["smape"] == 0
    assert score(ones, -ones, [2], **scale).compute()["smape"] == 2


def test_without_a_scale_there_are_only_scaled_scores(pairs):
    assert score(*pairs, [W]).compute().keys() == {"mse", "mae"}


def test_details_are_per_step_and_per_variate(pairs):
    details = score(*pairs, [W]).details()
    squared = (pairs[0] - pairs[1]) ** 2
    assert details["mse_per_step"] == pytest.approx(squared.mean((0, 2)).tolist(), rel=1e-5)
    assert details["mae_per_variate"] == pytest.approx((pairs[0] - pairs[1]).abs().mean((0, 1)).tolist(), rel=1e-5)


def test_reset_forgets_what_came_before(pairs):
    errors = score(*pairs, [W])
    errors.reset()
    errors.update(torch.ones(1, H, N), torch.zeros(1, H, N))
    assert errors.compute()["mse"] == 1


def test_sums_over_many_windows_stay_exact():
    errors = ForecastErrors(1, 1)
    batch = torch.full((4096, 1, 1), 0.1)
    for _ in range(500):
        errors.update(batch, torch.zeros_like(batch))
    assert float(errors.compute()["mse"]) == pytest.approx(0.01, rel=1e-5)

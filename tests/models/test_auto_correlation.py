"""Auto-Correlation against sums over time and rolled values."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.mixers.auto_correlation import AutoCorrelation, correlation, shifted

D = 6


def build(**options):
    torch.manual_seed(0)
    return AutoCorrelation(D, **({"factor": 1} | options)).double().eval()


def tokens(count, batch=3, seed=1):
    return torch.randn(batch, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_rolling(mixer, x, context=None):
    """Delays ranked by plain sums over time, values rolled one delay after the other."""
    source = x if context is None else context
    T, S = x.shape[1], source.shape[1]
    q, k, v = mixer.q(x), mixer.k(source), mixer.v(source)
    zeros = torch.zeros(len(x), max(0, T - S), D, dtype=x.dtype)
    k, v = torch.cat((k, zeros), 1)[:, :T], torch.cat((v, zeros), 1)[:, :T]
    scores = torch.stack([(q.roll(-tau, 1) * k).sum(1).mean(-1) for tau in range(T)], dim=1)
    count, y = int(mixer.factor * math.log(T)), torch.zeros_like(v)
    shared = scores.mean(0).argsort(descending=True)[:count].tolist()
    for b in range(len(x)):
        delays = shared if mixer.training else scores[b].argsort(descending=True)[:count].tolist()
        for tau, weight in zip(delays, scores[b, delays].softmax(0), strict=True):
            y[b] += weight * v[b].roll(-tau, 0)
    return mixer.o(y)


@pytest.mark.parametrize("training", [True, False], ids=["one_set_per_batch", "one_set_per_sample"])
@pytest.mark.parametrize("T", [24, 25], ids=["even", "odd"])
def test_it_is_the_sum_of_rolled_values_over_the_best_delays(training, T):
    mixer, x = build(factor=2).train(training), tokens(T)
    assert_close(mixer(x), by_rolling(mixer, x))


def test_training_and_evaluation_pick_different_delays():
    mixer, x = build(), tokens(24)
    assert (mixer(x) - mixer.train()(x)).abs().max() > 1e-3


@pytest.mark.parametrize("S", [15, 40], ids=["shorter", "longer"])
def test_a_context_is_padded_with_zeros_or_cut_to_the_querys_length(S):
    mixer, x, context = build(), tokens(24), tokens(S, seed=2)
    assert_close(mixer(x, context), by_rolling(mixer, x, context))


def test_the_delay_of_a_shifted_series_is_found_and_undone():
    v = tokens(30, batch=1)
    scores = correlation(v.roll(7, 1), v)
    assert scores.argmax().item() == 7
    one = torch.ones(1, 1, dtype=torch.float64)
    assert_close(shifted(v.roll(7, 1), scores.argmax(dim=1, keepdim=True), one), v)


def test_more_delays_than_tokens_are_all_tokens_and_one_token_is_itself():
    assert build(factor=50)(tokens(4)).shape == (3, 4, D)
    mixer, x = build(), tokens(1)
    assert_close(mixer(x), mixer.o(mixer.v(x)))


@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_are_finite_and_reach_every_projection(batch):
    mixer, x = build().train(), tokens(25, batch).requires_grad_()
    mixer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in mixer.parameters())


def test_half_precision_keeps_its_type():
    assert AutoCorrelation(D).bfloat16()(tokens(12).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{"factor": 0}, {"dropout": 1.0}, {"dim": 0}], ids=str)
def test_wrong_values_are_refused(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=rf"{'d_model' if name == 'dim' else name}={value} must be"):
        AutoCorrelation(**({"dim": D} | wrong))

"""ProbSparse attention against the paper's rule, query by query."""

import logging
import math

import pytest
import torch
from torch.testing import assert_close

from models.mixers.attention import Attention
from models.mixers.prob_sparse import ProbSparse, running_sum

D, T = 12, 40


def build(heads=3, **options):
    torch.manual_seed(0)
    return ProbSparse(D, heads, **({"factor": 1} | options)).double().eval()


def tokens(batch=2, count=T, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, count, D, dtype=torch.float64, generator=rng)


def by_loop(mixer, x, context=None):
    """Every query by itself, with the keys that evaluation samples."""
    source = x if context is None else context
    q, k, v = mixer._split(mixer.q(x)), mixer._split(mixer.k(source)), mixer._split(mixer.v(source))
    t, s = q.shape[-2], k.shape[-2]
    u, samples = math.ceil(math.log(t)), math.ceil(math.log(s))
    drawn = torch.randint(s, (t, samples), generator=torch.Generator().manual_seed(0))
    y = torch.empty_like(q)
    for b in range(len(q)):
        for h in range(mixer.heads):
            scores = q[b, h] @ k[b, h].T
            sampled = [scores[i, drawn[i]] for i in range(t)]
            measure = torch.stack([row.max() - row.sum() / s for row in sampled])
            chosen = set(measure.argsort(descending=True)[:u].tolist())
            for i in range(t):
                keys = slice(0, i + 1) if mixer.causal else slice(0, s)
                if i in chosen:
                    y[b, h, i] = (scores[i, keys] / (D // mixer.heads) ** 0.5).softmax(0) @ v[b, h, keys]
                else:
                    y[b, h, i] = v[b, h, keys].sum(0) if mixer.causal else v[b, h].mean(0)
    return mixer.o(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_the_queries_with_the_largest_measure_attend_and_the_rest_get_the_mean_or_the_running_sum(heads, batch, causal):
    mixer, x = build(heads, causal=causal), tokens(batch)
    assert_close(mixer(x), by_loop(mixer, x))


def test_keys_and_values_come_from_a_context_of_another_length():
    mixer, x, context = build(), tokens(), tokens(count=25, seed=2)
    assert_close(mixer(x, context), by_loop(mixer, x, context))


def test_where_every_query_would_be_chosen_it_is_full_attention_and_says_so_once(caplog):
    mixer, x = build(factor=10), tokens()
    full = Attention(D, 3).double()
    full.load_state_dict(mixer.state_dict())
    with caplog.at_level(logging.INFO):
        assert torch.equal(mixer(x), full(x))
        mixer(x)
    assert [r.message for r in caplog.records] == ["factor=10 picks 40 queries and there are 40: all of them attend"]


def test_one_token_attends_to_itself():
    mixer, x = build(), tokens(count=1)
    assert_close(mixer(x), mixer.o(mixer.v(x)))


def test_training_samples_keys_by_torchs_seed_and_evaluation_always_the_same():
    mixer, x = build(), tokens()
    mixer.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(mixer(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    mixer.eval()
    state = torch.get_rng_state()
    assert torch.equal(mixer(x), mixer(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_tensor_is_as_large_as_all_pairs_of_queries_and_keys():
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    x = torch.randn(1, 600, D)
    mixer = ProbSparse(D, 1, factor=1).train()
    with Sizes():
        mixer(x)
    assert largest < 600 * 600 / 10


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_gradients_are_finite_and_reach_every_projection(causal):
    mixer, x = build(causal=causal).train(), tokens().requires_grad_()
    mixer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())
    assert all(p.grad.abs().max() > 0 for name, p in mixer.named_parameters() if name != "k.bias")


def test_weights_applied_to_the_values_are_the_output():
    mixer, x = build(), tokens()
    y = mixer.weights(x) @ mixer._split(mixer.v(x))
    assert_close(mixer.o(y.transpose(1, 2).flatten(2)), mixer(x))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_the_running_sum_is_the_cumulative_sum(count):
    x = tokens(count=count)
    assert_close(running_sum(x), x.cumsum(-2))


@pytest.mark.parametrize("factor", [0, -1, 1.5])
def test_a_wrong_factor_is_refused(factor):
    with pytest.raises(ValueError, match=rf"factor={factor} must be a whole number of at least 1"):
        ProbSparse(D, 3, factor=factor)

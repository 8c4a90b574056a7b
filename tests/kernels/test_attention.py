"""Attention against the equation, pair by pair, and what holds whatever the backend and the options.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import math
from itertools import pairwise

import pytest
import torch
from attention_calls import ALL, integers, tensors, with_lse, without_lse
from compare import DEVICE, random, run
from torch.testing import assert_close

import kernels
from kernels import registry


def by_hand(q, k, v, mask, causal, window, key_lengths, cu_seqlens):
    """y and lse of one head, pair by pair."""
    (B, h, T, d), (_, g, S, e) = q.shape, v.shape
    y, lse = torch.zeros(B, h, T, e, dtype=q.dtype), torch.full((B, h, T), -torch.inf, dtype=q.dtype)
    for b, n, i in [(b, n, i) for b in range(B) for n in range(h) for i in range(T)]:
        weights = {}
        for j in range(S):
            at = i + S - T
            if (causal and j > at) or (window is not None and abs(j - at) > window):
                continue
            if key_lengths is not None and j >= key_lengths[b]:
                continue
            if cu_seqlens is not None and not any(
                first <= i < end and first <= j < end for first, end in pairwise(cu_seqlens)
            ):
                continue
            score = (q[b, n, i] @ k[b, n // (h // g), j]).item() / math.sqrt(d)
            weights[j] = math.exp(score + (0.0 if mask is None else mask[i, j].item()))
        if weights:
            lse[b, n, i] = math.log(sum(weights.values()))
            y[b, n, i] = sum(w * v[b, n // (h // g), j] for j, w in weights.items()) / sum(weights.values())
    return y, lse


@pytest.mark.parametrize("lengths", [None, [4, 0]], ids=["all_keys", "padded"])
@pytest.mark.parametrize("window", [None, 1], ids=["wide", "window"])
@pytest.mark.parametrize("causal", [False, True], ids=["both_sides", "causal"])
@pytest.mark.parametrize("size", [(4, 6), (6, 4)], ids=["more_keys", "more_queries"])
def test_reference_is_attention_pair_by_pair(size, causal, window, lengths):
    q, k, v = (x.detach().cpu() for x in tensors((2, 4, 2, *size, 3, 5)))
    mask = random(size, dtype=torch.float64)[0].detach().cpu()
    lengths = None if lengths is None else torch.tensor(lengths)
    with kernels.using(attention="reference"):
        ours = kernels.attention(q, k, v, mask=mask, causal=causal, window=window, key_lengths=lengths, return_lse=True)
    assert_close(ours, by_hand(q, k, v, mask, causal, window, lengths, None))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 1}], ids=["full", "causal", "window"])
def test_reference_of_packed_sequences_is_attention_pair_by_pair(options):
    q, k, v = (x.detach().cpu() for x in tensors((1, 2, 1, 9, 9, 3, 3)))
    bounds = [0, 2, 2, 7]  # one of them empty, two tokens of padding
    with kernels.using(attention="reference"):
        ours = kernels.attention(q, k, v, cu_seqlens=torch.tensor(bounds), return_lse=True, **options)
    expected = {"causal": False, "window": None, **options}
    assert_close(ours, by_hand(q, k, v, None, key_lengths=None, cu_seqlens=bounds, **expected))


@pytest.mark.parametrize("backend", ALL)
def test_attention_is_the_weighted_mean_of_the_values(backend):
    q, k, v = (x.detach() for x in tensors((1, 1, 1, 2, 3, 4, 4), torch.float32))
    with kernels.using(attention=backend):
        y = kernels.attention(q, k, v)
    for i in range(2):
        scores = torch.stack([(q[0, 0, i] * k[0, 0, j]).sum() / 2 for j in range(3)])
        weights = scores.exp() / scores.exp().sum()
        assert_close(y[0, 0, i], sum(weights[j] * v[0, 0, j] for j in range(3)))


@pytest.mark.parametrize("backend", ALL)
def test_causal_lines_up_the_last_query_with_the_last_key(backend):
    q, k, v = tensors((1, 1, 1, 2, 4, 3, 3), torch.float32)
    with kernels.using(attention=backend):
        y = kernels.attention(q, k, v, causal=True)
        assert_close(y[:, :, 1:], kernels.attention(q[:, :, 1:], k, v))
        assert_close(y[:, :, :1], kernels.attention(q[:, :, :1], k[:, :, :3], v[:, :, :3]))


@pytest.mark.parametrize("backend", ALL)
def test_packed_sequences_equal_each_by_itself(backend):
    q, k, v = tensors((1, 2, 2, 9, 9, 4, 4), torch.float32)
    with kernels.using(attention=backend):
        packed = kernels.attention(q, k, v, cu_seqlens=integers(0, 4, 9), causal=True)
        alone = [
            kernels.attention(*(x[:, :, part] for x in (q, k, v)), causal=True) for part in (slice(4), slice(4, 9))
        ]
    assert_close(packed, torch.cat(alone, dim=2))


@pytest.mark.parametrize("backend", ALL)
def test_two_halves_of_the_keys_merge_by_their_log_sum_exps(backend):
    """Gradients too: this is how attention over blocks is put together."""
    inputs = tensors((1, 2, 2, 3, 8, 4, 4), torch.float32)

    def merged(q, k, v):
        (y1, lse1), (y2, lse2) = (
            kernels.attention(q, k[:, :, part], v[:, :, part], return_lse=True) for part in (slice(3), slice(3, 8))
        )
        lse = torch.logaddexp(lse1, lse2)
        return y1 * (lse1 - lse).exp()[..., None] + y2 * (lse2 - lse).exp()[..., None]

    assert_close(run("attention", backend, merged, inputs), run("attention", "reference", kernels.attention, inputs))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=["boolean", "added"])
def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(backend, kind):
    inputs = tensors((1, 2, 2, 3, 3, 4, 4), torch.float32)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]], device=DEVICE)
    if kind != torch.bool:
        mask = torch.zeros(3, 3, dtype=kind, device=DEVICE).masked_fill(~mask, -torch.inf)
    y, lse, *gradients = run("attention", backend, with_lse(), [*inputs, mask])
    assert_close(y[:, :, 1], torch.zeros_like(y[:, :, 1]))
    assert_close(lse[:, :, 1], torch.full_like(lse[:, :, 1], -torch.inf))
    assert all(g.isfinite().all() for g in gradients)
    y, *gradients = run("attention", backend, without_lse(), [*inputs, mask])
    assert_close(y[:, :, 1], torch.zeros_like(y[:, :, 1]))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("options", [{}, {"window": 8}, {"return_lse": True}], ids=["full", "window", "lse"])
def test_dropout_acts_on_the_weights_and_keeps_their_mean(backend, options):
    torch.manual_seed(0)
    q = torch.zeros(64, 4, 8, 4)
    v = torch.ones(64, 4, 8, 4)
    with kernels.using(attention=backend):
        y = kernels.attention(q, q, v, dropout=0.25, **options)
    y = y[0] if "return_lse" in options else y
    possible = torch.arange(9) / 8 / 0.75  # how many of the 8 equal weights are left
    assert (y[..., None] - possible).abs().amin(-1).max() < 1e-6
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)


def test_triton_and_flex_say_what_they_cannot_do():
    backends = registry.backends("attention")[0]
    q, k, v = tensors((1, 1, 1, 2, 2, 4, 4), torch.float32)
    bias = random((2, 2))[0]
    for name in {"triton", "flex"} & set(backends):
        fits = backends[name].fits
        assert fits(q, k, v, dropout=0.1) == "dropout"
        assert fits(q, k, v, mask=bias) == "a bias that asks for gradients"
        assert fits(q.detach(), k.detach(), v.detach(), mask=bias.detach()) == ""
    if "triton" in backends:
        wide = torch.zeros(1, 1, 2, 257)
        assert backends["triton"].fits(wide, wide, wide) == "head dimension 257"
    if "flex" in backends and DEVICE == "cpu":
        assert backends["flex"].fits(q, k, v) == "gradients on a CPU"


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((1, 1, 2, 4), (1, 1, 3, 5), (1, 1, 3, 4)), {}, r"q \(1, 1, 2, 4\), k \(1, 1, 3, 5\).*same last size"),
        (((1, 3, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)), {}, r"2 key heads and 2 value heads for 3 query heads.*divides"),
        (((1, 1, 2, 4),) * 3, {"window": -1}, r"window=-1 must be 0"),
        (((2, 1, 2, 4),) * 3, {"key_lengths": torch.tensor([1])}, r"key_lengths \(1,\).*each of the 2 sequences"),
        (((2, 1, 2, 4),) * 3, {"cu_seqlens": torch.tensor([0, 2])}, r"q \(2, 1, 2, 4\).*B = 1"),
        (
            ((1, 1, 2, 4),) * 3,
            {"cu_seqlens": torch.tensor([0.0, 2.0])},
            r"cu_seqlens \(2,\) of torch.float32.*boundaries",
        ),
    ],
    ids=["width", "heads", "window", "key_lengths", "packed", "cu_seqlens"],
)
def test_arguments_that_do_not_fit_are_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        kernels.attention(*(torch.zeros(shape) for shape in shapes), **options)

"""Attention of every backend against the equation, outputs and gradients, under all options and their combinations.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import importlib.util
import math
import sys
from itertools import pairwise

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run
from torch.testing import assert_close

import kernels
from kernels import registry

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
ALL = ["reference", "torch", pytest.param("triton", marks=NEEDS_TRITON)]

SHAPES = {  # B, h, g, T, S, d, e
    "one_token": (2, 2, 2, 1, 1, 4, 5),
    "odd": (2, 3, 3, 7, 7, 5, 6),
    "more_keys": (1, 2, 2, 5, 9, 8, 8),
    "more_queries": (1, 2, 2, 9, 5, 8, 8),
    "grouped": (2, 4, 2, 6, 8, 4, 4),
    "long": (1, 1, 1, 130, 130, 16, 16),
}
OPTIONS = {
    "full": {},
    "causal": {"causal": True},
    "window": {"window": 2},
    "window_causal": {"window": 3, "causal": True},
    "own_position": {"window": 0},
    "scale": {"scale": 0.3},
}


def tensors(shape, dtype=torch.float64, scale=1.0):
    B, h, g, T, S, d, e = shape
    return random((B, h, T, d), (B, g, S, d), (B, g, S, e), dtype=dtype, scale=scale)


def masks(kind, shape, dtype=torch.float64):
    """Boolean, with an empty row, or added: one tensor each, in a list."""
    B, h, _, T, S = shape[:5]
    if kind == "boolean":
        seen = random((B, 1, T, S))[0] > -0.3
        seen[0, 0, 0] = False
        return [seen]
    return {
        "none": [],
        "added": random((T, S), dtype=dtype, seed=1),
        "added_per_head": random((h, 1, S), dtype=dtype, seed=1),
    }[kind]


def integers(*values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def with_lse(**options):
    def call(q, k, v, mask=None):
        return kernels.attention(q, k, v, mask=mask, return_lse=True, **options)

    return call


def without_lse(**options):
    return lambda q, k, v, mask=None: kernels.attention(q, k, v, mask=mask, **options)


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


@pytest.mark.parametrize("mask", ["none", "boolean", "added", "added_per_head"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_torch_equals_reference_in_outputs_and_all_gradients(shape, options, mask):
    inputs = [*tensors(shape), *masks(mask, shape)]
    agrees("attention", "torch", without_lse(**options), inputs)
    agrees("attention", "torch", with_lse(**options), inputs)


@pytest.mark.parametrize("call", [with_lse, without_lse])
@pytest.mark.parametrize(
    "options",
    [
        {"window": 5},
        {"window": 70, "causal": True},
        {"window": 3, "key_lengths": (120, 0)},
        {"window": 3, "causal": True, "key_lengths": (0, 333)},
        {"key_lengths": (200, 0)},
        {"causal": True, "key_lengths": (10, 300)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(330, 330), (200, 333), (330, 260)], ids=["square", "more_keys", "more_queries"])
def test_torch_takes_windows_block_by_block_and_key_padding_as_a_mask(size, options, call):
    options = {name: integers(*x) if name == "key_lengths" else x for name, x in options.items()}
    agrees("attention", "torch", call(**options), tensors((2, 2, 1, *size, 4, 4)))


@pytest.mark.parametrize("mask", ["none", "added"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("call", [with_lse, without_lse])
@pytest.mark.parametrize("bounds", [(0, 4, 4, 5, 9), (0, 3, 7), (0, 0)], ids=["whole", "padded", "nothing"])
def test_torch_takes_packed_sequences_one_by_one(bounds, options, mask, call):
    shape = (1, 4, 2, 9, 9, 4, 4)
    inputs = [*tensors(shape), *masks(mask, shape)]
    if bounds[-1] == 0 and mask == "none":  # no sequence, so nothing depends on anything
        inputs = [x.detach() for x in inputs]
    agrees("attention", "torch", call(cu_seqlens=integers(*bounds), **options), inputs)


def test_torch_computes_the_log_sum_exp_of_long_sequences_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(sys.modules["kernels.attention._rows"], "SCORES", 300)  # kernels.attention is the function
    shape = (1, 2, 1, 50, 40, 4, 4)
    for kind in ("none", "added", "added_per_head", "boolean"):
        agrees("attention", "torch", with_lse(causal=True, window=9), [*tensors(shape), *masks(kind, shape)])


TRITON = {  # blocks of 16 queries and 32 keys
    "one_token": ((2, 2, 2, 1, 1, 4, 4), {}, "none"),
    "whole_blocks": ((1, 1, 1, 32, 64, 16, 16), {}, "none"),
    "one_partial_block": ((1, 2, 2, 5, 7, 8, 3), {}, "none"),
    "grouped_odd_sizes": ((1, 4, 2, 19, 35, 20, 12), {}, "none"),
    "wide_heads": ((1, 1, 1, 5, 5, 130, 256), {"causal": True}, "none"),
    "causal": ((1, 1, 1, 70, 70, 8, 8), {"causal": True}, "none"),
    "causal_more_keys": ((1, 2, 1, 33, 50, 8, 8), {"causal": True}, "none"),
    "causal_more_queries": ((1, 1, 1, 50, 33, 8, 8), {"causal": True}, "none"),
    "window": ((1, 1, 1, 100, 100, 8, 8), {"window": 21}, "none"),
    "narrow_window": ((1, 1, 1, 70, 70, 8, 8), {"window": 0}, "none"),
    "window_wider_than_all": ((1, 1, 1, 20, 40, 8, 8), {"window": 2**40}, "none"),
    "window_more_keys": ((1, 1, 1, 33, 90, 8, 8), {"window": 9}, "none"),
    "window_more_queries": ((1, 1, 1, 90, 33, 8, 8), {"window": 40}, "none"),
    "window_causal": ((1, 1, 1, 70, 100, 8, 8), {"window": 40, "causal": True}, "none"),
    "key_lengths": ((3, 1, 1, 18, 70, 8, 8), {"key_lengths": (70, 0, 33)}, "none"),
    "key_lengths_causal_window": (
        (2, 1, 1, 70, 70, 8, 8),
        {"key_lengths": (50, 3), "causal": True, "window": 20},
        "none",
    ),
    "packed": ((1, 2, 1, 70, 70, 8, 8), {"cu_seqlens": (0, 5, 5, 37, 70)}, "none"),
    "packed_causal_padded": ((1, 1, 1, 80, 80, 8, 8), {"cu_seqlens": (0, 40, 45), "causal": True}, "none"),
    "packed_window": ((1, 1, 1, 80, 80, 8, 8), {"cu_seqlens": (0, 50, 80), "window": 11}, "none"),
    "boolean_mask": ((2, 2, 2, 20, 40, 8, 8), {}, "boolean"),
    "added_mask": ((1, 2, 1, 20, 40, 8, 8), {"scale": 0.7}, "added"),
    "added_mask_per_head_causal": ((1, 2, 1, 20, 40, 8, 8), {"causal": True}, "added_per_head"),
    "all_options": ((1, 2, 1, 40, 40, 8, 8), {"cu_seqlens": (0, 25, 40), "key_lengths": (38,), "window": 9}, "boolean"),
    "no_keys": ((1, 1, 1, 3, 0, 4, 4), {}, "none"),
    "no_queries": ((1, 1, 1, 0, 3, 4, 4), {}, "none"),
}


@NEEDS_TRITON
@pytest.mark.parametrize(("shape", "options", "mask"), TRITON.values(), ids=TRITON)
def test_triton_equals_reference_in_outputs_and_all_gradients(shape, options, mask):
    options = {name: integers(*x) if isinstance(x, tuple) else x for name, x in options.items()}
    inputs = [*tensors(shape, torch.float32), *(x.detach() for x in masks(mask, shape, torch.float32))]
    agrees("attention", "triton", with_lse(**options), inputs)


@NEEDS_TRITON
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_triton_keeps_the_precision_of_each_dtype(dtype):
    shape = (1, 2, 1, 20, 40, 16, 16)
    inputs = [*tensors(shape, dtype), *(x.detach() for x in masks("added", shape, dtype))]
    agrees("attention", "triton", with_lse(causal=True), inputs)
    y, lse, *_ = run("attention", "triton", with_lse(), inputs)
    assert (y.dtype, lse.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=NEEDS_TRITON)])
def test_autocast_computes_in_its_dtype_whatever_the_inputs_are(backend):
    q, k, v = tensors((1, 1, 1, 3, 3, 4, 4), torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16), kernels.using(attention=backend, strict=True):
        y = kernels.attention(q, k.bfloat16(), v)
    assert y.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(y.sum(), (q, k, v)))


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=NEEDS_TRITON)])
def test_large_scores_and_a_given_scale_stay_finite(backend):
    inputs = tensors((1, 2, 2, 6, 6, 8, 8), torch.float32, scale=30.0)
    agrees("attention", backend, with_lse(scale=1.0), inputs)
    assert all(x.isfinite().all() for x in run("attention", backend, with_lse(scale=1.0), inputs))


@NEEDS_TRITON
def test_triton_reads_and_gives_tensors_of_any_layout():
    q, k, v = random((2, 9, 3, 8), (2, 3, 8, 9), (1, 1, 9, 8))

    def call(q, k, v):
        return kernels.attention(q.transpose(1, 2), k.transpose(2, 3), v.expand(2, 3, -1, -1))

    agrees("attention", "triton", call, [q, k, v])
    with kernels.using(attention="triton", strict=True):
        assert call(q, k, v).transpose(1, 2).is_contiguous()  # the heads of a token side by side, as projections want


@NEEDS_TRITON
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_triton_looks_at_no_block_outside_of_a_window_or_sequence():
    q, k, v = (x.detach() for x in tensors((1, 1, 1, 96, 96, 8, 8), torch.float32))
    k[:, :, 64:] = v[:, :, 64:] = torch.nan  # what is looked at, even with weight 0, would spoil the sums
    with kernels.using(attention="triton", strict=True):
        for options in ({"window": 8}, {"causal": True}, {"cu_seqlens": integers(0, 64, 96)}):
            assert kernels.attention(q, k, v, **options)[:, :, :48].isfinite().all()
        assert kernels.attention(q, k, v, key_lengths=integers(64)).isfinite().all()


FLEX = {
    "causal_more_keys": ((1, 2, 1, 6, 9, 8, 8), {"causal": True}, "none"),
    "window": ((2, 1, 1, 9, 6, 8, 8), {"window": 2}, "none"),
    "packed_and_padded": ((1, 2, 1, 9, 9, 8, 8), {"cu_seqlens": (0, 4, 8), "key_lengths": (7,)}, "boolean"),
    "added_mask": ((1, 2, 1, 6, 9, 8, 8), {"key_lengths": (7,)}, "added"),
}


@pytest.mark.parametrize(("shape", "options", "mask"), FLEX.values(), ids=FLEX)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_equals_reference(shape, options, mask):
    """Forward only on a CPU, where flex_attention has no gradients."""
    options = {name: integers(*x) if isinstance(x, tuple) else x for name, x in options.items()}
    inputs = [*tensors(shape, torch.float32), *masks(mask, shape, torch.float32)]
    inputs = [x.detach().requires_grad_(DEVICE == "cuda" and i < 3) for i, x in enumerate(inputs)]
    agrees("attention", "flex", with_lse(**options), inputs)


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=NEEDS_TRITON)])
@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True, "return_lse": True}, {"window": 2, "key_lengths": (4,)}, {"cu_seqlens": (0, 3, 6)}],
    ids=str,
)
def test_torch_compile_takes_the_op_as_one_graph(backend, options):
    options = {name: integers(*x) if isinstance(x, tuple) else x for name, x in options.items()}
    inputs = tensors((1, 2, 1, 6, 6, 4, 4), torch.float32)
    compiles("attention", backend, lambda q, k, v: kernels.attention(q, k, v, **options), inputs)


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

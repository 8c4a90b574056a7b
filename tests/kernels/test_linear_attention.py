"""Linear attention: chunks and Triton against the quadratic form, outputs and gradients."""

import importlib
from functools import partial

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run
from torch.testing import assert_close

from kernels.linear_attention import linear_attention

pytest.importorskip("triton")

OP = "linear_attention"
BACKENDS = ["torch", "triton"]
FORMS = {
    "full": {},
    "causal": {"causal": True},
    "full_sums": {"normalize": False},
    "causal_sums": {"causal": True, "normalize": False},
}
SHAPES = {  # B, h, T, m, e
    "two_tokens": (2, 1, 2, 3, 2),
    "one_chunk": (1, 1, 16, 16, 16),
    "odd": (1, 2, 37, 5, 3),
    "wide": (1, 1, 18, 33, 20),
}


def features(B, h, T, m, e, S=None, dtype=torch.float32, scale=1.0):
    """q and k without negative entries, v with."""
    q, k, v = random((B, h, T, m), (B, h, S or T, m), (B, h, S or T, e), scale=scale)
    return [x.detach().to(dtype).requires_grad_() for x in (q.abs(), k.abs(), v)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_all_gradients_are_those_of_the_quadratic_form(shape, form, backend):
    agrees(OP, backend, partial(linear_attention, **form), features(*shape), 0.1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_every_precision(dtype, causal, backend):
    agrees(OP, backend, partial(linear_attention, causal=causal), features(1, 2, 35, 6, 4, dtype=dtype))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_many_chunks_in_double_precision(form):
    agrees(OP, "torch", partial(linear_attention, **form), features(1, 2, 203, 7, 5, dtype=torch.float64))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_one_token_gets_its_own_value(causal, backend):
    q, k, v = features(2, 3, 1, 3, 2)
    y, *gradients = run(OP, backend, partial(linear_attention, causal=causal), (q, k, v))
    assert_close(y, v)
    assert all(g.abs().max() < 1e-6 for g in gradients[:2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("T", "S"), [(3, 40), (40, 3)], ids=["more_keys", "more_queries"])
def test_queries_and_keys_of_different_numbers(T, S, backend):
    agrees(OP, backend, linear_attention, features(2, 1, T, 4, 6, S=S))


def test_keys_in_several_spans(monkeypatch):
    monkeypatch.setattr(importlib.import_module("kernels.linear_attention.triton"), "SPAN", 16)
    agrees(OP, "triton", linear_attention, features(1, 1, 5, 4, 3, S=37))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_each_output_is_the_weighted_mean_of_the_values(causal, backend):
    q, k, v = (x.detach() for x in features(1, 1, 4, 3, 2))
    (y,) = run(OP, backend, partial(linear_attention, causal=causal), (q, k, v))
    for i in range(4):
        weights = [(q[0, 0, i] * k[0, 0, j]).sum() for j in range(i + 1 if causal else 4)]
        assert_close(y[0, 0, i], sum(w * v[0, 0, j] for j, w in enumerate(weights)) / sum(weights))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_padding_changes_nothing_and_a_row_without_keys_is_zero_with_finite_gradients(causal, backend):
    q, k, v = features(2, 1, 20, 4, 3)
    mask = torch.ones(2, 20, dtype=torch.bool, device=DEVICE)
    mask[0, 17:] = False
    mask[1] = False
    call = partial(linear_attention, causal=causal)
    y, *gradients = run(OP, backend, partial(call, key_mask=mask), (q, k, v))
    kept = [x[:1, :, :17].detach() for x in (q, k, v)]
    (short,) = run(OP, backend, call, kept)
    assert_close(y[:1, :, :17], short)
    assert not y[1].any()
    assert all(g.isfinite().all() and not g[1].any() for g in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-4, 1e4], ids=["small", "large"])
def test_the_scale_of_the_keys_cancels(scale, backend):
    q, k, v = features(1, 1, 21, 4, 3)
    call = partial(linear_attention, causal=True)
    plain, scaled = (run(OP, backend, call, (q, x, v)) for x in (k, (k * scale).detach().requires_grad_()))
    assert_close(scaled[0], plain[0])
    assert_close(scaled[2] * scale, plain[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_sums_do_not_overflow_in_half_precision(backend):
    q, k, v = (x.detach().half() for x in features(1, 1, 40, 4, 3))
    big = partial(linear_attention, causal=True)
    (y,) = run(OP, backend, big, (q, k * 100, v * 1000))
    (exact,) = run(OP, "reference", big, (q.double(), (k * 100).double(), (v * 1000).double()))
    assert_close(y.double(), exact, rtol=0, atol=2e-3 * exact.abs().max().item())


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_sums_are_float32_under_autocast(causal):
    inputs = features(1, 2, 70, 5, 4)

    def cast(*tensors):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return linear_attention(*tensors, causal=causal)

    ours, plain = (run(OP, "torch", call, inputs) for call in (cast, partial(linear_attention, causal=causal)))
    for x, y in zip(ours, plain, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_the_op_compiles_to_one_graph(causal, backend):
    compiles(OP, backend, partial(linear_attention, causal=causal), features(1, 1, 20, 4, 3))


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (
            ((1, 1, 2, 4), (1, 1, 3, 5), (1, 1, 3, 4)),
            {},
            r"q \(1, 1, 2, 4\), k \(1, 1, 3, 5\).*expected \(B, h, T, m\)",
        ),
        (((1, 1, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4)), {"causal": True}, r"2 queries and 3 keys.*as many"),
        (((1, 1, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4)), {"key_mask": torch.ones(1, 2)}, r"key_mask \(1, 2\).*\(1, 3\)"),
    ],
    ids=["widths", "causal", "mask"],
)
def test_shapes_that_do_not_fit_are_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        linear_attention(*(torch.zeros(shape) for shape in shapes), **options)

"""Fused attention against the equation, outputs and gradients."""

import pytest
import torch
from torch.testing import assert_close

import kernels

SHAPES = {  # B, h, T, S, d
    "one_token": (2, 2, 1, 1, 4),
    "odd": (2, 3, 7, 7, 5),
    "more_keys": (1, 2, 5, 9, 8),
    "more_queries": (1, 2, 9, 5, 8),
    "long": (1, 1, 130, 130, 16),
}


def tensors(B, h, T, S, d, scale=1.0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    shapes = ((B, h, T, d), (B, h, S, d), (B, h, S, d + 1))
    return [(scale * torch.randn(s, generator=rng, dtype=torch.float64)).to(dtype).requires_grad_() for s in shapes]


def outputs_and_gradients(backend, inputs, **options):
    with kernels.using(attention=backend):
        y = kernels.attention(*inputs, **options)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, *torch.autograd.grad(y, inputs, upstream)


def masks(kind, B, h, T, S):
    rng = torch.Generator().manual_seed(1)
    if kind == "boolean":
        return torch.rand(B, 1, T, S, generator=rng) > 0.4
    if kind == "additive":
        return torch.randn(T, S, generator=rng, dtype=torch.float64)
    return None


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_torch_equals_reference_in_outputs_and_all_gradients(shape, mask, causal):
    inputs, mask = tensors(*shape), masks(mask, *shape[:4])
    ours = outputs_and_gradients("torch", inputs, mask=mask, causal=causal)
    assert_close(ours, outputs_and_gradients("reference", inputs, mask=mask, causal=causal))


def test_torch_equals_reference_for_large_scores_and_a_given_scale():
    inputs = tensors(2, 2, 6, 6, 8, scale=30.0, dtype=torch.float32)
    ours = outputs_and_gradients("torch", inputs, scale=1.0)
    assert_close(ours, outputs_and_gradients("reference", inputs, scale=1.0), rtol=1e-4, atol=1e-4)
    assert all(x.isfinite().all() for x in ours)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_attention_is_the_weighted_mean_of_the_values(backend):
    q, k, v = (x.detach() for x in tensors(1, 1, 2, 3, 4))
    with kernels.using(attention=backend):
        y = kernels.attention(q, k, v)
    for i in range(2):
        scores = torch.stack([(q[0, 0, i] * k[0, 0, j]).sum() / 2 for j in range(3)])
        weights = scores.exp() / scores.exp().sum()
        assert_close(y[0, 0, i], sum(weights[j] * v[0, 0, j] for j in range(3)))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_causal_lines_up_the_last_query_with_the_last_key(backend):
    q, k, v = tensors(1, 1, 2, 4, 3)
    with kernels.using(attention=backend):
        y = kernels.attention(q, k, v, causal=True)
        assert_close(y[:, :, 1:], kernels.attention(q[:, :, 1:], k, v))
        assert_close(y[:, :, :1], kernels.attention(q[:, :, :1], k[:, :, :3], v[:, :, :3]))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64], ids=["boolean", "additive"])
def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(backend, kind):
    inputs = tensors(1, 2, 3, 3, 4)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    if kind != torch.bool:
        mask = torch.zeros(3, 3, dtype=kind).masked_fill(~mask, -torch.inf)
    y, *gradients = outputs_and_gradients(backend, inputs, mask=mask)
    assert_close(y[:, :, 1], torch.zeros_like(y[:, :, 1]))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_dropout_acts_on_the_weights_and_keeps_their_mean(backend):
    torch.manual_seed(0)
    q = torch.zeros(64, 4, 8, 4)
    v = torch.ones(64, 4, 8, 4)
    with kernels.using(attention=backend):
        y = kernels.attention(q, q, v, dropout=0.25)
    possible = torch.arange(9) / 8 / 0.75  # how many of the 8 equal weights are left
    assert (y[..., None] - possible).abs().amin(-1).max() < 1e-6
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)


def test_shapes_that_do_not_fit_are_named():
    q, k, v = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 3, 4)
    with pytest.raises(ValueError, match=r"q \(1, 1, 2, 4\), k \(1, 1, 3, 5\).*same last size"):
        kernels.attention(q, k, v)

"""The blocked and the Triton selective scan against the token-by-token one, outputs and gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from compare import DEVICE, LOW_PRECISION, agrees, compiles
from torch.testing import assert_close

import kernels

blocked = importlib.import_module("kernels.selective_scan.blocked")

SHAPES = {  # B, T, C, n
    "one_token": (2, 1, 3, 2),
    "eleven_tokens": (3, 11, 8, 2),
    "one_state": (2, 13, 5, 1),
    "odd": (2, 37, 5, 3),
    "pieces": (1, 203, 4, 2),
    "wide_state": (1, 64, 3, 32),
}
NAMES = ("u", "delta", "A", "B", "C", "D", "z")


def tensors(B, T, C, n, dtype=torch.float64, step=1.0, seed=0):
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    A = -torch.arange(1, n + 1, dtype=torch.float64).repeat(C, 1) * torch.exp(0.1 * normal(C, n))
    delta = step * F.softplus(normal(B, T, C) - 2)
    inputs = (normal(B, T, C), delta, A, normal(B, T, n), normal(B, T, n), normal(C), normal(B, T, C))
    return [x.to(dtype).requires_grad_() for x in inputs]


def outputs_and_gradients(backend, inputs):
    with kernels.using(selective_scan=backend):
        y = kernels.selective_scan(*inputs)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, *torch.autograd.grad(y, inputs, upstream)


def assert_same(ours, theirs, **tolerance):
    for name, mine, other in zip(("y", *NAMES), ours, theirs, strict=False):
        assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_torch_equals_reference_in_outputs_and_all_gradients(shape):
    inputs = tensors(*shape)
    assert_same(outputs_and_gradients("torch", inputs), outputs_and_gradients("reference", inputs))


@pytest.mark.parametrize("piecewise", [False, True], ids=["steps", "pieces"])
@pytest.mark.parametrize("kept", [False, True], ids=["computed_again", "kept"])
@pytest.mark.parametrize("width", [1, 7, 40], ids=lambda width: f"blocks_of_{width}")
def test_blocks_of_any_width_give_the_same(width, kept, piecewise, monkeypatch):
    B, T, C, n = 2, 101, 3, 2
    monkeypatch.setitem(blocked.BLOCK, "cpu", width * B * C * n)
    monkeypatch.setitem(blocked.KEEP, "cpu", 2**20 if kept else 0)
    monkeypatch.setitem(blocked.STEP, "cpu", 2**13 if piecewise else 0)
    inputs = tensors(B, T, C, n)
    assert_same(outputs_and_gradients("torch", inputs), outputs_and_gradients("reference", inputs))


def test_float32_stays_within_a_hundred_thousandth_of_float64():
    inputs = tensors(2, 300, 6, 4)
    exact = kernels.selective_scan(*inputs)
    assert_close(kernels.selective_scan(*(x.float() for x in inputs)).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("step", [1e-6, 1e4], ids=["tiny_steps", "huge_steps"])
def test_long_sequences_stay_finite_forward_and_backward(backend, step):
    inputs = tensors(1, 600, 4, 3, dtype=torch.float32, step=step)
    assert all(x.isfinite().all() for x in outputs_and_gradients(backend, inputs))


def test_large_inputs_agree_in_float32():
    inputs = tensors(2, 50, 4, 3, dtype=torch.float32)
    inputs[0] = (inputs[0].detach() * 1e4).requires_grad_()
    ours, theirs = (outputs_and_gradients(backend, inputs) for backend in ("torch", "reference"))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max()


def test_gradients_agree_with_finite_differences():
    assert torch.autograd.gradcheck(kernels.selective_scan, tensors(2, 9, 2, 2))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_recurrence_is_the_written_one(backend):
    u, delta, A, B, C = (x.detach() for x in tensors(1, 4, 1, 1)[:5])
    with kernels.using(selective_scan=backend):
        y = kernels.selective_scan(u, delta, A, B, C)
    state = 0.0
    for t in range(4):
        state = torch.exp(delta[0, t, 0] * A[0, 0]) * state + delta[0, t, 0] * u[0, t, 0] * B[0, t, 0]
        assert_close(y[0, t, 0], C[0, t, 0] * state)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_state_is_float32_under_autocast_and_for_half_precision(backend):
    inputs = tensors(1, 400, 4, 2, dtype=torch.float32)
    with kernels.using(selective_scan=backend):
        plain = kernels.selective_scan(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = kernels.selective_scan(*inputs)
            cast.sum().backward()
        half = [x.detach().bfloat16() for x in inputs]
        low = kernels.selective_scan(*half)
        exact = kernels.selective_scan(*(x.float() for x in half))
    assert torch.equal(cast, plain)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, exact.bfloat16())  # only the inputs and the result are rounded


def test_backends_agree_without_gate_and_skip():
    inputs = tensors(2, 12, 3, 2)[:5]
    assert_same(outputs_and_gradients("torch", inputs), outputs_and_gradients("reference", inputs))


def test_a_growing_state_is_refused_by_the_reference():
    u, delta, A, B, C, *_ = tensors(1, 3, 2, 2)
    with kernels.using(selective_scan="reference"), pytest.raises(ValueError, match=r"A reaches .* must be negative"):
        kernels.selective_scan(u, delta, -A, B, C)


def test_shapes_that_do_not_fit_are_named():
    u, delta, A, B, C, *_ = tensors(1, 3, 2, 4)
    with pytest.raises(ValueError, match=r"A \(4, 2\).*expected .*\(C, n\)"):
        kernels.selective_scan(u, delta, A.t(), B, C)


TRITON_SHAPES = {  # B, T, C, n: T, C and n are no multiples of a tile
    "one_token": (2, 1, 3, 2),
    "one_state": (1, 6, 2, 1),
    "whole_tiles": (1, 8, 4, 2),
    "odd": (2, 11, 5, 3),
}


def on_device(inputs, dtype):
    """A stays float32, as a model keeps it under autocast."""
    return [x.detach().to(DEVICE, torch.float32 if i == 2 else dtype).requires_grad_() for i, x in enumerate(inputs)]


@pytest.mark.parametrize("optional", [7, 6, 5], ids=["D_and_z", "D", "bare"])
@pytest.mark.parametrize("shape", TRITON_SHAPES.values(), ids=TRITON_SHAPES)
def test_triton_equals_reference_in_outputs_and_all_gradients(shape, optional):
    pytest.importorskip("triton")
    agrees(
        "selective_scan", "triton", kernels.selective_scan, on_device(tensors(*shape), torch.float32)[:optional], 0.1
    )


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_triton_takes_every_precision(dtype):
    pytest.importorskip("triton")
    agrees("selective_scan", "triton", kernels.selective_scan, on_device(tensors(1, 9, 3, 2), dtype))


def test_triton_takes_a_gate_without_a_skip():
    pytest.importorskip("triton")
    u, delta, A, B, C, _, z = on_device(tensors(1, 5, 2, 2), torch.float32)
    agrees(
        "selective_scan",
        "triton",
        lambda u, delta, A, B, C, z: kernels.selective_scan(u, delta, A, B, C, z=z),
        [u, delta, A, B, C, z],
    )


@pytest.mark.parametrize("step", [1e-6, 1e4], ids=["tiny_steps", "huge_steps"])
def test_triton_stays_exact_for_extreme_steps(step):
    pytest.importorskip("triton")
    agrees("selective_scan", "triton", kernels.selective_scan, on_device(tensors(1, 9, 2, 2, step=step), torch.float32))


def test_triton_takes_tensors_that_are_not_contiguous():
    pytest.importorskip("triton")
    inputs = on_device(tensors(2, 5, 3, 2), torch.float32)
    agrees(
        "selective_scan",
        "triton",
        kernels.selective_scan,
        [x.mT.contiguous().mT if x.ndim == 3 else x for x in (x.detach() for x in inputs)],
    )


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_scan_compiles_to_one_graph(backend):
    pytest.importorskip("triton")
    compiles("selective_scan", backend, kernels.selective_scan, on_device(tensors(1, 5, 2, 2), torch.float32))

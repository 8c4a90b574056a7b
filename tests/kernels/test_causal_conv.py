"""The causal convolution: torch's routes and Triton's against the direct sum, outputs and gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run
from torch.testing import assert_close

from kernels.causal_conv import causal_conv

pytest.importorskip("triton")

OP = "causal_conv"
BACKENDS = ["torch", "triton"]
SHAPES = {  # B, T, G, C, L
    "one_token": (2, 1, 3, 3, 2),
    "one_tap": (2, 5, 3, 3, 1),
    "mamba": (2, 11, 5, 5, 2),
    "three_taps": (1, 9, 4, 4, 3),
    "five_taps": (1, 9, 4, 4, 5),
    "few_taps_of_shared_channels": (2, 9, 2, 6, 4),
    "mossformer": (1, 37, 2, 2, 17),
    "whole_blocks": (2, 32, 1, 1, 32),
    "lmu": (3, 21, 1, 5, 21),
    "shared_channels": (2, 19, 2, 6, 19),
    "longer_than_the_sequence": (1, 18, 2, 2, 40),
    "one_sequence_of_many_blocks": (1, 75, 1, 2, 60),
}


def tensors(B, T, G, C, L, dtype=torch.float32, scale=1.0):
    return random((B, T, G), (C, L), dtype=dtype, scale=scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_and_all_gradients_are_those_of_the_sum(shape, backend):
    agrees(OP, backend, causal_conv, tensors(*shape), 0.1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_torch_in_double_precision(shape):
    agrees(OP, "torch", causal_conv, tensors(*shape, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 9, 3, 3, 2), (1, 9, 2, 2, 4), (2, 20, 1, 3, 20)], ids=["two", "four", "twenty"])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_every_precision(dtype, shape, backend):
    agrees(OP, backend, causal_conv, tensors(*shape, dtype=dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [0, 1], ids=["input", "kernel"])
@pytest.mark.parametrize("L", [2, 20])
def test_one_gradient_alone(L, wanted, backend):
    inputs = [x if i == wanted else x.detach() for i, x in enumerate(tensors(2, 20, 1, 1, L))]
    agrees(OP, backend, causal_conv, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("L", [2, 20])
def test_a_float32_kernel_with_half_precision_input(L, backend):
    u, kernel = tensors(1, 20, 2, 2, L)
    inputs = [u.detach().bfloat16().requires_grad_(), kernel.detach().bfloat16().float().requires_grad_()]
    agrees(OP, backend, causal_conv, inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("L", [3, 12, 19])
def test_it_is_conv1d_with_the_taps_reversed(L, backend):
    u, kernel = (x.detach() for x in tensors(2, 20, 2, 4, L))
    (y,) = run(OP, backend, causal_conv, (u, kernel))
    padded = F.pad(u.mT, (L - 1, 0))
    assert_close(y, F.conv1d(padded, kernel.flip(1)[:, None], groups=2).mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_it_runs_a_linear_state_space_as_the_recurrence_does(backend):
    T, M, theta = 24, 6, 24
    i = torch.arange(M, dtype=torch.float64)
    sign = torch.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1))
    A, B = (2 * i[:, None] + 1) / theta * sign, (2 * i + 1) / theta * (-1.0) ** i
    step = torch.linalg.matrix_exp(A)
    enter = torch.linalg.solve(A, (step - torch.eye(M, dtype=torch.float64)) @ B)
    powers = [enter]
    for _ in range(T - 1):
        powers.append(step @ powers[-1])
    u = torch.randn(2, T, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (m,) = run(OP, backend, causal_conv, (u.float().to(DEVICE), torch.stack(powers, 1).float().to(DEVICE)))
    state = torch.zeros(2, M, dtype=torch.float64)
    for t in range(T):
        state = state @ step.T + u[:, t] * enter
        assert_close(m[:, t].double().cpu(), state, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("L", [2, 6, 30])
def test_no_output_depends_on_a_later_token(L, backend):
    u, kernel = (x.detach() for x in tensors(1, 40, 2, 2, L))
    changed = u.clone()
    changed[:, 20:] = 1e3
    (y,), (z,) = (run(OP, backend, causal_conv, (x, kernel)) for x in (u, changed))
    assert_close(y[:, :20], z[:, :20], rtol=0, atol=2e-2 if L == 30 else 0)  # an FFT rounds at the scale of the largest


@pytest.mark.parametrize("L", [2, 6, 30])
def test_it_is_float32_under_autocast(L):
    inputs = tensors(2, 40, 3, 3, L)

    def cast(u, kernel):
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return causal_conv(u, kernel)

    ours, plain = (run(OP, "torch", call, inputs) for call in (cast, causal_conv))
    for x, y in zip(ours, plain, strict=True):
        assert torch.equal(x, y)


def test_transforms_have_lengths_of_small_factors():
    good = importlib.import_module("kernels.causal_conv.fft")._good_length
    assert [good(n) for n in (1, 2, 7, 11, 17, 22, 255, 1567)] == [2, 2, 8, 12, 18, 24, 256, 1568]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 9, 3, 3, 2), (2, 20, 1, 2, 20)], ids=["short", "long"])
def test_the_op_compiles_to_one_graph(shape, backend):
    compiles(OP, backend, causal_conv, tensors(*shape))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"u \(1, 5, 2\), kernel \(3, 4\).*C a multiple of G"):
        causal_conv(torch.zeros(1, 5, 2), torch.zeros(3, 4))

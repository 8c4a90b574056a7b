"""One linear map per expert's rows, and the permutation around it, against the equation: outputs and gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close

import kernels
from kernels.grouped_linear import grouped_linear, permute, unpermute

CASES = {  # rows of each expert, rows after them, in, out
    "one_row": ([1], 0, 5, 3),
    "one_expert": ([37], 0, 20, 9),
    "odd": ([5, 17, 33, 2], 0, 33, 37),
    "empty_experts": ([0, 20, 0, 0, 13, 0], 0, 8, 40),
    "fewer_rows_than_experts": ([0, 1, 0, 1, 0, 0, 0, 1, 0], 0, 16, 16),
    "whole_tiles": ([16, 32, 16], 0, 32, 64),
    "rows_after_the_last": ([4, 0, 19], 21, 17, 8),
    "no_expert_has_rows": ([0, 0, 0], 18, 8, 8),
    "no_rows": ([0, 0], 0, 4, 4),
}
BACKENDS = ["torch", "triton"]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def need(backend):
    if backend == "triton":
        pytest.importorskip("triton")


def tensors(counts, rest, d_in, d_out, dtype=torch.float32, bias=True, scale=1.0):
    e, N = len(counts), sum(counts) + rest
    shapes = [(N, d_in), (e, d_out, d_in), (e, d_out)]
    return random(*shapes[: 2 + bias], dtype=dtype, scale=scale), torch.tensor(counts, device=DEVICE)


@every_case
@every_backend
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_backend_equals_reference_in_outputs_and_all_gradients(backend, case, bias):
    need(backend)
    inputs, counts = tensors(*case, bias=bias)
    agrees("grouped_linear", backend, lambda x, w, *b: grouped_linear(x, w, counts, *b), inputs)


@every_backend
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_backend_equals_reference_in_low_precision(backend, dtype):
    need(backend)
    inputs, counts = tensors(*CASES["odd"], dtype=dtype)
    counts = counts.int()  # factor: the bias's gradient adds up rounded upstream gradients
    agrees("grouped_linear", backend, lambda x, w, b: grouped_linear(x, w, counts, b), inputs, factor=3.0)


@every_backend
def test_large_values_agree(backend):
    need(backend)
    inputs, counts = tensors(*CASES["odd"], scale=1e4)
    agrees("grouped_linear", backend, lambda x, w, b: grouped_linear(x, w, counts, b), inputs)


@every_backend
def test_tensors_that_are_views_agree(backend):
    need(backend)
    x, w = random((33, 20), (3, 33, 9))
    counts = torch.tensor([8, 0, 12], device=DEVICE)
    agrees("grouped_linear", backend, lambda x, w: grouped_linear(x.t(), w.transpose(1, 2), counts), [x, w])


@every_backend
@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["x", "weight", "bias"])
def test_a_tensor_without_gradient_changes_nothing_for_the_others(backend, frozen):
    need(backend)
    inputs, counts = tensors(*CASES["odd"])
    inputs[frozen].requires_grad_(False)
    agrees("grouped_linear", backend, lambda x, w, b: grouped_linear(x, w, counts, b), inputs)


@every_backend
def test_torch_compile_takes_it_in_one_graph(backend):
    need(backend)
    inputs, counts = tensors(*CASES["rows_after_the_last"])
    compiles("grouped_linear", backend, lambda x, w, b: grouped_linear(x, w, counts, b), inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_each_row_meets_the_weight_of_its_expert_and_rows_after_the_last_give_zeros(backend):
    need(backend)
    (x, w, b), counts = tensors([3, 0, 2], 2, 6, 4)
    with kernels.using(grouped_linear=backend), torch.no_grad():
        y = grouped_linear(x, w, counts, b)
    for n, i in enumerate([0, 0, 0, 2, 2]):
        assert_close(y[n], w[i] @ x[n] + b[i])
    assert not y[5:].any()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_parameters_dtype(backend):
    need(backend)
    (x, w, b), counts = tensors(*CASES["odd"])
    with kernels.using(grouped_linear=backend):
        with torch.autocast(DEVICE, torch.bfloat16):
            y = grouped_linear(x, w, counts, b)
        y.float().sum().backward()
        exact = grouped_linear(x, w, counts, b)
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == w.grad.dtype == b.grad.dtype == torch.float32
    assert_close(y.float(), exact, rtol=0.0, atol=0.02 * exact.abs().max().item())


def test_gradients_of_the_torch_version_agree_with_finite_differences():
    counts = torch.tensor([2, 0, 3])
    inputs = [x.cpu() for x in random((6, 3), (3, 2, 3), (3, 2), dtype=torch.float64)]
    with kernels.using(grouped_linear="torch"):
        assert torch.autograd.gradcheck(lambda x, w, b: grouped_linear(x, w, counts, b), inputs)


def test_shapes_that_do_not_fit_are_named():
    x, w = torch.zeros(4, 3), torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"weight \(2, 3, 5\).*expected \(N, in\), \(e, out, in\)"):
        grouped_linear(x, w.transpose(1, 2), torch.tensor([2, 2]))
    with pytest.raises(ValueError, match=r"counts \(3,\).*expected"):
        grouped_linear(x, w, torch.tensor([2, 1, 1]))
    with pytest.raises(ValueError, match=r"counts is torch.float32, it must be torch.int32 or torch.int64"):
        grouped_linear(x, w, torch.tensor([2.0, 2.0]))
    with pytest.raises(ValueError, match=r"weight torch.float64.* must be of one dtype"):
        grouped_linear(x, w.double(), torch.tensor([2, 2]))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("counts", [[3, 2], [-1, 2]], ids=["too_many", "negative"])
def test_counts_that_the_rows_do_not_cover_are_refused(backend, counts):
    with kernels.using(grouped_linear=backend), pytest.raises(ValueError, match=r"counts \[.* must be >= 0 .* 4 rows"):
        grouped_linear(torch.zeros(4, 3), torch.zeros(2, 5, 3), torch.tensor(counts))


# ---- permute and unpermute


def routed(N, h, k, e, dtype=torch.float64):
    x, weights, scores = random((N, h), (N, k), (N, e), dtype=dtype)
    return x, weights, scores.topk(k)[1]


def layer(x, weights, experts, e, capacity=None):
    """Expert i multiplies by i + 1."""
    rows, counts, order = permute(x, experts, e, capacity)
    expert = torch.searchsorted(counts.cumsum(0), torch.arange(rows.shape[0], device=x.device), right=True)
    return unpermute(rows * (expert + 1)[:, None].to(rows.dtype), order, weights)


def layer_by_hand(x, weights, experts, e, capacity=None):
    taken, y = [0] * e, []
    for n, chosen in enumerate(experts.tolist()):
        row = torch.zeros_like(x[n])
        for j, i in enumerate(chosen):
            if capacity is None or taken[i] < capacity:
                row = row + weights[n, j] * (i + 1) * x[n]
            taken[i] += 1
        y.append(row)
    return torch.stack(y)


@pytest.mark.parametrize("capacity", [None, 1, 4, 1000], ids=lambda c: f"capacity_{c}")
@pytest.mark.parametrize("shape", [(13, 5, 3, 6), (2, 4, 1, 9), (1, 1, 1, 1), (20, 3, 2, 2)], ids=str)
def test_permute_and_unpermute_equal_a_loop_over_tokens_in_outputs_and_gradients(shape, capacity):
    x, weights, experts = routed(*shape)
    y, by_hand = (f(x, weights, experts, shape[-1], capacity) for f in (layer, layer_by_hand))
    assert_close(y, by_hand)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    assert_close(torch.autograd.grad(y, (x, weights), upstream), torch.autograd.grad(by_hand, (x, weights), upstream))


def test_rows_are_sorted_by_expert_and_then_by_token():
    x = torch.arange(4.0)[:, None]
    rows, counts, order = permute(x, torch.tensor([[2, 0], [0, 2], [2, 3], [0, 3]]), 5)
    assert rows[:, 0].tolist() == [0, 1, 3, 0, 1, 2, 2, 3]
    assert counts.tolist() == [3, 0, 3, 2, 0]
    assert order.tolist() == [[3, 0], [1, 4], [5, 6], [2, 7]]


def test_beyond_its_capacity_an_expert_drops_the_later_tokens_and_rows_left_over_are_zeros():
    x = torch.arange(1.0, 5.0)[:, None]
    rows, counts, order = permute(x, torch.tensor([[1], [1], [1], [0]]), 3, capacity=2)
    assert rows[:, 0].tolist() == [4, 1, 2, 0]
    assert counts.tolist() == [1, 2, 0]
    assert order.tolist() == [[1], [2], [-1], [0]]
    assert unpermute(rows, order, torch.ones(4, 1))[:, 0].tolist() == [1, 2, 0, 4]
    assert permute(x, torch.zeros(4, 1, dtype=torch.long), 2, capacity=1)[0].shape == (2, 1)


@every_backend
def test_a_dropless_layer_and_one_of_ample_capacity_equal_dense_experts(backend):
    need(backend)
    N, h, k, e, width = 11, 8, 2, 4, 12
    x, weights, experts = routed(N, h, k, e, dtype=torch.float32)
    up, down = random((e, width, h), (e, h, width))
    dense = torch.stack([F.gelu(x @ up[i].t()) @ down[i].t() for i in range(e)], 1)
    expected = (weights[:, :, None] * dense.gather(1, experts[:, :, None].expand(-1, -1, h))).sum(1)
    for capacity in (None, N):
        with kernels.using(grouped_linear=backend):
            rows, counts, order = permute(x, experts, e, capacity)
            rows = grouped_linear(F.gelu(grouped_linear(rows, up, counts)), down, counts)
            y = unpermute(rows, order, weights)
        assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_torch_compile_takes_permute_and_unpermute_in_one_graph():
    x, weights, experts = routed(9, 4, 2, 5, dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for capacity in (None, 2):
        ours, eager = (f(x, weights, experts, 5, capacity) for f in (compiled, layer))
        assert_close(ours, eager)
        assert_close(*(torch.autograd.grad(y.sum(), (x, weights)) for y in (ours, eager)))


def test_gates_keep_float32_beside_bfloat16_rows():
    x, weights, experts = routed(9, 4, 2, 5, dtype=torch.float32)
    y = layer(x.bfloat16(), weights, experts, 5)
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.float().sum(), weights)
    assert gradient.dtype == torch.float32
    assert_close(y.float(), layer(x, weights, experts, 5), rtol=0.0, atol=0.1)


def test_arguments_of_the_permutation_that_do_not_fit_are_named():
    x, experts = torch.zeros(4, 3), torch.zeros(5, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"x \(4, 3\) and experts \(5, 2\).*expected \(N, h\) and \(N, k\)"):
        permute(x, experts, 2)
    with pytest.raises(ValueError, match=r"num_experts=2 and capacity=0 must be at least 1"):
        permute(x, experts[:4], 2, capacity=0)
    with pytest.raises(ValueError, match=r"order \(5, 2\), weights \(4, 2\) do not fit"):
        unpermute(x, experts, torch.zeros(4, 2))


def test_the_weights_gradient_of_an_empty_expert_is_zero_whatever_memory_held():
    module = importlib.import_module("kernels.grouped_linear.grouped_mm")
    gy, x = (y.detach() for y in random((4, 3), (4, 2)))
    assert not module._weight_gradient(gy, x, torch.tensor([0, 4, 0], device=DEVICE))[::2].any()

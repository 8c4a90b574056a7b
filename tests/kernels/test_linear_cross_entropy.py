"""Cross-entropy without logits in memory against the equation: outputs and all gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close

import kernels
from kernels.linear_cross_entropy import linear_cross_entropy

chunked = importlib.import_module("kernels.linear_cross_entropy.chunked")

SHAPES = {  # N, d, V
    "one_token": (1, 4, 3),
    "one_class": (5, 4, 1),
    "odd": (37, 21, 75),
    "one_block": (16, 32, 32),
    "many_blocks": (40, 8, 300),
    "no_tokens": (0, 4, 6),
}
BACKENDS = ["torch", "triton"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
smoothing = pytest.mark.parametrize("label_smoothing", [0.0, 0.1], ids=["hard", "smoothed"])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """So that a few tokens are several chunks, and few logits are not kept."""
    monkeypatch.setattr(chunked, "ROWS", 7)
    monkeypatch.setattr(chunked, "CHUNK", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunked, "_keeps_logits", lambda *_: False)


def need(backend):
    if backend == "triton":
        pytest.importorskip("triton")


def tensors(N, d, V, dtype=torch.float32, scale=1.0, ignored=0.3):
    rng = torch.Generator().manual_seed(1)
    target = torch.randint(V, (N,), generator=rng)
    target[torch.rand(N, generator=rng) < ignored] = -100
    x, weight, bias = random((N, d), (V, d), (V,), dtype=dtype, scale=scale)
    return [x, weight, bias], target.to(DEVICE)


def loss(target, **options):
    return lambda x, weight, bias=None: linear_cross_entropy(x, weight, target, bias=bias, **options)


@every_backend
@every_reduction
@smoothing
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_backend_equals_reference_in_outputs_and_all_gradients(backend, shape, reduction, label_smoothing):
    need(backend)
    inputs, target = tensors(*shape)
    call = loss(target, reduction=reduction, label_smoothing=label_smoothing)
    agrees("linear_cross_entropy", backend, call, inputs)


@every_backend
@every_reduction
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
def test_backend_equals_reference_in_low_precision_without_bias(backend, reduction, dtype):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"], dtype=dtype)
    agrees("linear_cross_entropy", backend, loss(target, reduction=reduction), inputs[:2], factor=2.0)


@every_backend
def test_large_logits_agree_and_stay_finite(backend):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"], scale=30.0)
    agrees("linear_cross_entropy", backend, loss(target, reduction="none"), inputs)


@every_backend
def test_a_class_that_is_ruled_out_gets_no_probability(backend):
    need(backend)
    inputs, target = tensors(20, 8, 70)
    inputs[2].data[3:40] = -torch.inf  # a whole block of the vocabulary and more
    target = target.where(target < 0, 50)
    agrees("linear_cross_entropy", backend, loss(target), inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@every_reduction
def test_where_all_tokens_are_ignored_the_loss_and_its_gradients_are_zero(backend, reduction):
    need(backend)
    inputs, target = tensors(20, 8, 33)
    with kernels.using(linear_cross_entropy=backend):
        value = loss(torch.full_like(target, 7), ignore_index=7, reduction=reduction)(*inputs).sum()
    assert value.item() == 0.0
    assert not any(g.any() for g in torch.autograd.grad(value, inputs))


@every_backend
def test_a_class_may_be_the_ignored_index(backend):
    need(backend)
    inputs, target = tensors(20, 8, 5, ignored=0.0)
    agrees("linear_cross_entropy", backend, loss(target, ignore_index=2), inputs)


@every_backend
@every_reduction
@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["x", "weight", "bias"])
def test_a_tensor_without_gradient_changes_nothing_for_the_others(backend, frozen, reduction):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"])
    inputs[frozen].requires_grad_(False)
    agrees("linear_cross_entropy", backend, loss(target, reduction=reduction), inputs)


@every_backend
@every_reduction
def test_torch_compile_takes_it_in_one_graph(backend, reduction):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"])
    compiles("linear_cross_entropy", backend, loss(target, reduction=reduction, label_smoothing=0.1), inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@every_reduction
@smoothing
def test_it_is_torchs_cross_entropy_of_a_linear_map(backend, reduction, label_smoothing):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"])
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    with kernels.using(linear_cross_entropy=backend), torch.no_grad():
        ours = loss(target, **options)(*inputs)
    assert ours.dtype == torch.float32
    assert_close(ours, F.cross_entropy(F.linear(*inputs), target, **options), rtol=1e-4, atol=1e-4)


def test_few_logits_that_are_kept_and_chunks_give_the_same(monkeypatch):
    inputs, target = tensors(*SHAPES["odd"])
    for reduction in ("mean", "sum", "none"):
        call = loss(target, reduction=reduction, label_smoothing=0.1)
        with kernels.using(linear_cross_entropy="torch"):
            lean = call(*inputs)
            monkeypatch.setattr(chunked, "_keeps_logits", lambda *_: True)
            kept = call(*inputs)
            monkeypatch.setattr(chunked, "_keeps_logits", lambda *_: False)
        assert_close(lean, kept)
        assert_close(*(torch.autograd.grad(y.sum(), inputs) for y in (lean, kept)))


@every_backend
@every_reduction
def test_a_small_gradient_of_the_loss_is_not_lost_in_float16(backend, reduction):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"], dtype=torch.float16)
    with kernels.using(linear_cross_entropy=backend):
        value = loss(target, reduction=reduction)(*inputs).sum()
    big, small = (torch.autograd.grad(s * value, inputs, retain_graph=True) for s in (1.0, 2.0**-12))
    for ours, exact in zip(small, big, strict=True):
        assert_close(2.0**12 * ours.float(), exact.float(), rtol=0.01, atol=2.0**-12)  # a step of float16's smallest


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_parameters_dtype(backend):
    need(backend)
    inputs, target = tensors(*SHAPES["odd"])
    with kernels.using(linear_cross_entropy=backend):
        exact = loss(target)(*inputs)
        with torch.autocast(DEVICE, torch.bfloat16):
            value = loss(target)(*inputs)
        gradients = torch.autograd.grad(value, inputs)
    assert value.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in gradients)
    assert value.item() == pytest.approx(exact.item(), rel=0.01)


def test_gradients_of_the_torch_version_agree_with_finite_differences():
    target = torch.tensor([0, 3, -100, 1, 1])
    inputs = [x.cpu() for x in random((5, 3), (4, 3), (4,), dtype=torch.float64)]
    for reduction in ("mean", "none"):
        with kernels.using(linear_cross_entropy="torch"):
            assert torch.autograd.gradcheck(loss(target, reduction=reduction, label_smoothing=0.2), inputs)


def test_arguments_that_do_not_fit_are_named():
    x, weight, target = torch.zeros(4, 3), torch.zeros(6, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"weight \(3, 6\).*expected \(N, d\), \(V, d\)"):
        linear_cross_entropy(x, weight.t(), target)
    with pytest.raises(ValueError, match=r"target is torch.float32, it must be torch.int64"):
        linear_cross_entropy(x, weight, target.float())
    with pytest.raises(ValueError, match=r"reduction='max' must be one of mean, sum, none"):
        linear_cross_entropy(x, weight, target, reduction="max")
    with pytest.raises(ValueError, match=r"label_smoothing=1.5 in \[0, 1\]"):
        linear_cross_entropy(x, weight, target, label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"weight torch.float64.* must be of one dtype"):
        linear_cross_entropy(x, weight.double(), target)

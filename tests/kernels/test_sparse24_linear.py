"""The 2:4 pattern and its storage, and sparse24_linear's backends against its reference."""

from itertools import combinations

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run
from torch import Tensor
from torch.testing import assert_close

import kernels
from kernels.sparse24_linear import mask24, pack24, sparse24_linear, unpack24, unpacked

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

# ---- pattern and storage ----


@pytest.mark.parametrize(
    ("group", "kept"),
    [
        ([4.0, -3.0, 2.0, 1.0], [1, 1, 0, 0]),
        ([0.0, 1.0, -5.0, 2.0], [0, 0, 1, 1]),
        ([1.0, -1.0, 1.0, 1.0], [1, 1, 0, 0]),  # ties go to the first
        ([1.0, 2.0, -2.0, 2.0], [0, 1, 1, 0]),
        ([1.0, 1.0, 3.0, -1.0], [1, 0, 1, 0]),
        ([0.0, 0.0, 0.0, 0.0], [1, 1, 0, 0]),
    ],
)
def test_the_two_largest_of_four_are_kept(group, kept):
    assert mask24(torch.tensor([group], device=DEVICE)).int().tolist() == [kept]


def test_no_other_pattern_keeps_more():
    weight = random((8, 64))[0].detach()
    groups = weight.abs().view(8, 16, 4)
    best = torch.stack([groups[..., pair].sum(-1) for pair in map(list, combinations(range(4), 2))]).amax(0)
    assert_close((weight.abs() * mask24(weight)).view(8, 16, 4).sum(-1), best)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("K", [4, 8, 12, 64])
def test_packing_and_unpacking_is_exact(K, dtype):
    weight = random((6, K), dtype=dtype)[0].detach()
    values, indices, scale = pack24(weight)
    assert scale is None
    assert indices.shape == (6, -(-K // 8))
    assert unpack24(values, indices).equal(weight * mask24(weight))
    again = pack24(unpack24(values, indices))
    assert again.values.equal(values)
    assert again.indices.equal(indices)


def test_places_are_two_bits_each_and_two_groups_a_byte():
    weight = torch.tensor([[0, 7, 0, 9, 1, 2, 0, 0, 0, 0, 3, 4.0]])
    values, indices, _ = pack24(weight)
    assert values.tolist() == [[7, 9, 1, 2, 3, 4]]
    assert indices.tolist() == [[0b_01_00_11_01, 0b_11_10]]


def test_a_given_mask_is_kept_also_where_its_weights_are_zero():
    mask = torch.tensor([[False, False, True, True]])
    values, indices, _ = pack24(torch.tensor([[5.0, 6, 0, 1]]), mask)
    assert values.tolist() == [[0, 1]]
    assert unpack24(torch.ones_like(values), indices).tolist() == [[0, 0, 1, 1]]


def test_eight_bits_are_the_nearest_integers_times_a_scale_per_output():
    weight = random((5, 32))[0].detach()
    weight[3] = 0
    values, indices, scale = pack24(weight, int8=True)
    kept = weight * mask24(weight)
    assert values.dtype == torch.int8
    assert_close(scale[[0, 1, 2, 4]] * 127, weight.abs().amax(1)[[0, 1, 2, 4]])
    assert (values[[0, 1, 2, 4]].abs().amax(1) == 127).all()
    assert unpack24(values, indices).equal((kept / scale[:, None]).round().to(torch.int8))
    assert ((unpack24(values, indices, scale) - kept).abs() <= scale[:, None] * 0.5001).all()


def test_storage_ratios_are_those_of_the_paper():
    weight = torch.randn(16, 256)
    sixteen, eight = pack24(weight.half()), pack24(weight, int8=True)
    of_half = (sixteen.values.nbytes + sixteen.indices.nbytes) / (2 * weight.numel())
    of_eight = (eight.values.nbytes + eight.indices.nbytes) / weight.numel()
    assert (of_half, of_eight) == (0.5625, 0.625)
    assert weight.nbytes / (eight.values.nbytes + eight.indices.nbytes) == 6.4


def test_a_width_that_four_does_not_divide_is_refused():
    message = "a weight of 10 inputs has no 2:4 pattern: the number of inputs must be divisible by 4"
    with pytest.raises(ValueError, match=message):
        mask24(torch.zeros(3, 10))
    with pytest.raises(ValueError, match=message):
        pack24(torch.zeros(3, 10))
    with pytest.raises(ValueError, match=message):
        sparse24_linear(torch.zeros(2, 10), torch.zeros(3, 5), torch.zeros(3, 2, dtype=torch.uint8))


def test_a_mask_of_another_pattern_is_refused():
    with pytest.raises(ValueError, match="True for exactly two of each four inputs"):
        pack24(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))


# ---- the layer ----


def test_reference_is_the_masked_dense_layer():
    x, weight, bias = random((3, 5, 12), (7, 12), (7,), dtype=torch.float64)
    values, indices, _ = pack24(weight)
    with kernels.using(sparse24_linear="reference"):
        y = sparse24_linear(x, values, indices, None, bias)
    by_hand = torch.einsum("btk,nk->btn", x, weight * mask24(weight)) + bias
    assert_close(y, by_hand)


def test_reference_multiplies_integers_where_inputs_are_eight_bit():
    x, weight = (t.detach() for t in random((3, 16), (4, 16)))
    values, indices, scale = pack24(weight, int8=True)
    x_scale = torch.tensor(1.5 / 127, device=DEVICE)
    with kernels.using(sparse24_linear="reference"):
        y = sparse24_linear(x, values, indices, scale, x_scale=x_scale)
    integers = (x / x_scale).round().clamp(-127, 127).long() @ unpack24(values, indices).T.long()
    assert_close(y, integers * x_scale * scale)


def test_gradients_of_values_are_those_of_the_weight_where_it_is_kept():
    x, weight = random((6, 16), (5, 16), dtype=torch.float64)
    mask = mask24(weight)
    values, indices, _ = pack24(weight)
    values.requires_grad_()
    with kernels.using(sparse24_linear="reference"):
        (ours,) = torch.autograd.grad(sparse24_linear(x, values, indices).square().sum(), values)
    (dense,) = torch.autograd.grad((x @ (weight * mask).T).square().sum(), weight)
    assert_close(ours, dense[mask].view_as(values))


def test_gradients_pass_the_rounding_and_stop_where_it_clips():
    values, indices, scale = pack24(torch.tensor([[1.0, 0, 1, 0]]), int8=True)
    x = torch.tensor([[0.3, 5.0, -1.2, 0.4]], requires_grad=True)
    for backend in ("reference", "torch"):
        with kernels.using(sparse24_linear=backend):
            y = sparse24_linear(x, values, indices, scale, x_scale=torch.tensor(1 / 127))
        assert_close(y, torch.tensor([[38 / 127 - 1]]))
        assert_close(torch.autograd.grad(y.sum(), x)[0], torch.tensor([[1.0, 0, 0, 0]]))


CASES = {  # (rows..., inputs), outputs
    "one group": ((1, 4), 1),
    "half a byte": ((7, 12), 5),
    "few rows": ((2, 3, 200), 19),
    "many rows": ((3, 23, 136), 17),
    "one row": ((1, 64), 32),
    "many inputs": ((3, 644), 18),
    "no rows": ((0, 72), 20),
}


def case(name: str, kind: str, dtype: torch.dtype = torch.float32) -> tuple:
    """(call, inputs) of a case with weights as they are, of 8 bits, or with inputs of 8 bits too."""
    shape, outputs = CASES[name]
    x, weight, bias = random(shape, (outputs, shape[-1]), (outputs,), dtype=dtype)
    values, indices, scale = pack24(weight, int8=kind != "values")
    if kind == "values":
        return lambda x, v, b: sparse24_linear(x, v, indices, None, b), [x, values.requires_grad_(), bias]
    x_scale = torch.tensor(2.1 / 127, device=DEVICE) if kind == "int8 inputs" else None

    def call(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return sparse24_linear(x, values, indices, scale, bias, x_scale=x_scale)

    return call, [x, scale.requires_grad_(), bias]


KINDS = ["values", "int8", "int8 inputs"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_torch_agrees_with_the_reference(name, kind):
    agrees("sparse24_linear", "torch", *case(name, kind))


@pytest.mark.parametrize("int8", [False, True], ids=["values", "int8"])
def test_unpacking_again_for_backward_as_on_a_gpu_changes_no_gradient(int8):
    x, weight, bias = random((2, 3, 20), (7, 20), (7,))
    values, indices, scale = pack24(weight, int8=int8)
    learnt = scale if int8 else values

    def arguments(x: Tensor, learnt: Tensor, bias: Tensor) -> tuple:
        return (x, values, indices, learnt, bias) if int8 else (x, learnt, indices, None, bias)

    inputs = [x, learnt.requires_grad_(), bias]
    again = run("sparse24_linear", "torch", lambda *given: unpacked._Product.apply(*arguments(*given)), inputs)
    kept = run("sparse24_linear", "torch", lambda *given: sparse24_linear(*arguments(*given)), inputs)
    assert_close(again, kept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_torch_agrees_in_sixteen_bits(kind, dtype):
    agrees("sparse24_linear", "torch", *case("few rows", kind, dtype))


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_triton_agrees_with_the_reference(name, kind, dtype):
    pytest.importorskip("triton")
    agrees("sparse24_linear", "triton", *case(name, kind, dtype))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_what_is_not_contiguous_is_multiplied_all_the_same(backend):
    pytest.importorskip("triton")
    call, (x, values, bias) = case("few rows", "values")
    inputs = [x.detach().mT.clone().requires_grad_(), values.detach().T.clone().requires_grad_(), bias]
    agrees("sparse24_linear", backend, lambda x, v, b: call(x.mT, v.T, b), inputs)


@pytest.mark.parametrize("kind", ["values", "int8 inputs"])
@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_compiles_to_one_graph(backend, kind):
    if backend == "triton":
        pytest.importorskip("triton")
    compiles("sparse24_linear", backend, *case("few rows", kind))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_gradients_of_a_scale_do_not_overflow_float16(backend):
    pytest.importorskip("triton")
    call, (x, scale, bias) = case("few rows", "int8", torch.float16)
    inputs = [(40 * x.detach()).requires_grad_(), (scale.detach() / 16).requires_grad_(), bias]
    agrees("sparse24_linear", backend, call, inputs)


@pytest.mark.parametrize(
    ("N", "K", "int8", "trained", "reason"),
    [
        (64, 128, False, False, ""),
        (32, 64, False, False, ""),
        (48, 64, False, False, r"a weight of (48, 64): not multiples of (32, 64)"),
        (64, 96, False, False, r"a weight of (64, 96): not multiples of (32, 64)"),
        (64, 128, True, False, "int8 values"),
        (64, 128, False, True, "gradients of the values"),
    ],
)
def test_semi_structured_tensors_name_what_torch_refuses(N, K, int8, trained, reason):
    from kernels.sparse24_linear.semi_structured import fits

    values, indices, scale = pack24(torch.randn(N, K), int8=int8)
    assert fits(torch.zeros(8, K), values.requires_grad_(trained), indices, scale) == reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores need a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_semi_structured_tensors_agree_and_follow_a_changed_weight(dtype):
    x, weight, bias = random((3, 40, 128), (64, 128), (64,), dtype=dtype)
    values, indices, _ = pack24(weight)

    def call(x: Tensor, bias: Tensor) -> Tensor:
        return sparse24_linear(x, values, indices, None, bias)

    agrees("sparse24_linear", "semi_structured", call, [x, bias])
    values.neg_()
    agrees("sparse24_linear", "semi_structured", call, [x, bias])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(3, 8)}, r"values \(3, 8\) .* expected \(3, 4\) and \(3, 1\)"),
        ({"indices": torch.zeros(3, 2, dtype=torch.uint8)}, r"indices \(3, 2\) .* expected \(3, 4\) and \(3, 1\)"),
        ({"values": torch.zeros(3, 4, dtype=torch.int8)}, "int8 without scale for x of torch.float32"),
        ({"values": torch.zeros(3, 4).half()}, "values of torch.float16 without scale for x of torch.float32"),
        ({"scale": torch.zeros(3)}, "values of torch.float32 with scale"),
        ({"x_scale": torch.ones(())}, "x_scale .* expected a scalar, and values of torch.int8"),
        ({"bias": torch.zeros(8)}, r"bias \(8,\) does not fit 3 outputs"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    fitting = {"values": torch.zeros(3, 4), "indices": torch.zeros(3, 1, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=message):
        sparse24_linear(torch.zeros(2, 8), **{**fitting, **change})

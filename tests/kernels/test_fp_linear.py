"""Float formats of few bits, and fp_linear's backends against its reference."""

import math

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run
from torch import Tensor
from torch.testing import assert_close

import kernels
from kernels.fp_linear import FloatFormat, decode, encode, fp_linear, lookup, pack4, quantize, unpack4

E1M2, E2M1, E3M0, E4M3 = FloatFormat(1, 2), FloatFormat(2, 1), FloatFormat(3, 0), FloatFormat(4, 3)
FORMATS = [FloatFormat(e, m) for e in range(1, 8) for m in range(8 - e)]
TABLES = {  # values of positive sign for the bias 0, printed in the paper's description or counted by hand
    E1M2: [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5],
    E2M1: [0, 1, 2, 3, 4, 6, 8, 12],
    E3M0: [0, 2, 4, 8, 16, 32, 64, 128],
    FloatFormat(1, 0): [0, 2],
    FloatFormat(2, 2): [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10, 12, 14],
    FloatFormat(3, 1): [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192],
}


def bias_of(value: float, shape: tuple[int, ...] = ()) -> Tensor:
    return torch.full(shape, float(value), device=DEVICE)


def layer(format: FloatFormat, outputs: int, inputs: int, per_tensor: bool = False) -> tuple[Tensor, Tensor]:
    """(codes as fp_linear takes them, exponent biases) of a normal weight, each output's largest value its maximum."""
    weight = random((outputs, inputs), seed=7)[0].detach()
    exponent_bias = format.bias(weight.abs().amax() if per_tensor else weight.abs().amax(1))
    codes = encode(weight, format, exponent_bias if per_tensor else exponent_bias[:, None])
    return pack4(codes) if format.bits == 4 else codes, exponent_bias.requires_grad_()


# ---- formats ----


@pytest.mark.parametrize("format", TABLES, ids=str)
def test_values_are_those_of_the_paper(format):
    positive = [float(value) for value in TABLES[format]]
    assert format.values == positive + [-value for value in positive]
    assert math.copysign(1, format.values[len(positive)]) == -1  # the code of -0


def test_e4m3_keeps_no_code_for_infinity_or_nan():
    ordinary = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()  # its bias is 7
    ours = torch.tensor(E4M3.values) * 2.0**-7
    finite = ordinary.isfinite()
    assert ours[finite].equal(ordinary[finite])
    assert ours[~finite].tolist() == [480, -480]
    assert E4M3.largest(torch.tensor(7.0)) == 480


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_decoding_and_encoding_is_exact_for_every_code_and_bias(format):
    codes = torch.arange(2**format.bits, dtype=torch.uint8, device=DEVICE)
    for bias in (0.0, float(format.top), format.top + 1.37, format.top - 3.71):
        values = decode(codes, format, bias_of(bias))
        assert encode(values, format, bias_of(bias)).equal(codes)
        assert quantize(values, format, bias_of(bias)).equal(values)
        assert_close(values.abs().max(), format.largest(bias_of(bias)))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_quantize_takes_the_nearest_value(format):
    x = 0.7 * random((500,), dtype=torch.float64)[0].detach()
    bias = format.bias(torch.tensor(1.0, dtype=torch.float64, device=DEVICE)) + 0.123
    values = torch.tensor(format.values, dtype=torch.float64, device=DEVICE) * torch.exp2(-bias)
    rounded = quantize(x, format, bias)
    assert_close((rounded - x).abs(), (values[:, None] - x).abs().amin(0), rtol=1e-9, atol=1e-12)
    assert decode(encode(x, format, bias), format, bias).equal(rounded)


@pytest.mark.parametrize(
    ("format", "given", "expected"),
    [
        (E2M1, [0.5, 1.5, 2.5, 3.5, 5, 7, 10, 0.51, -2.5], [0, 2, 2, 4, 4, 8, 8, 1, -2]),
        (E2M1, [12.1, 1e30, -math.inf, -11, 0], [12, 12, -12, -12, 0]),
        (E1M2, [0.25, 0.75, 1.25, 3.25, 3.6, -9], [0, 1, 1, 3, 3.5, -3.5]),
        (E3M0, [1, 1.1, 3, 2.9, 5, 6, 96, 200], [0, 2, 4, 2, 4, 8, 128, 128]),
    ],
)
def test_ties_go_to_even_and_large_values_saturate(format, given, expected):
    x = torch.tensor(given, device=DEVICE)
    assert quantize(x, format, bias_of(0)).tolist() == expected
    assert quantize(x / 16, format, bias_of(4)).mul(16).tolist() == expected
    assert quantize(torch.tensor([math.nan], device=DEVICE), format, bias_of(0)).isnan().all()


def test_bias_makes_a_value_the_largest_one():
    largest = torch.tensor([0.3, 1.0, 77.0, 0.0], dtype=torch.float64)
    for format in FORMATS:
        e, m = format.exponent, format.mantissa
        assert_close(format.largest(format.bias(largest)), largest.clamp(min=1e-6))
        by_hand = [2**e - math.log2(q) + math.log2(2 - 2.0**-m) - 1 for q in (0.3, 1.0, 77.0)]  # eq. 7
        assert_close(format.bias(largest)[:3], torch.tensor(by_hand, dtype=torch.float64))


def test_gradients_pass_the_rounding_and_stop_where_it_clips():
    x = torch.tensor([0.2, 2.4, -5.5, 13.0, -40.0], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    rounded = quantize(x, E2M1, bias)
    assert rounded.tolist() == [0, 2, -6, 12, -12]
    g_x, g_bias = torch.autograd.grad(rounded, [x, bias], torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double())
    assert g_x.tolist() == [1, 2, 3, 0, 0]
    by_hand = math.log(2) * (0.2 - 0 + 2 * (2.4 - 2) + 3 * (-5.5 + 6) - 4 * 12 + 5 * 12)
    assert_close(g_bias.item(), by_hand)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_four_bit_codes_pack_two_to_a_byte_and_back(n):
    codes = torch.randint(0, 16, (3, n), dtype=torch.uint8)
    packed = pack4(codes)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, -(-n // 2))
    assert (packed[:, 0] & 15).equal(codes[:, 0])
    assert unpack4(packed, n).equal(codes)


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((0, 3), "E0M3 is not a float format; exponent bits must be >= 1"),
        ((4, 4), "E4M4 is not a float format of 2 to 8 bits: 1 [+] exponent [+] mantissa is 9"),
        ((2, -1), "E2M-1 is not a float format"),
    ],
)
def test_what_is_no_format_is_refused(bits, message):
    with pytest.raises(ValueError, match=message):
        FloatFormat(*bits)


# ---- the layer ----


def test_reference_multiplies_what_a_loop_decodes():
    x = random((3, 5), dtype=torch.float64)[0]
    codes = torch.arange(10, dtype=torch.uint8, device=DEVICE).view(2, 5)
    b = [0.5, 3.25]
    with kernels.using(fp_linear="reference"):
        y = fp_linear(x, pack4(codes), E2M1, torch.tensor(b, device=DEVICE), torch.tensor([1.0, -1.0], device=DEVICE))
    table = [sign * value for sign in (1, -1) for value in TABLES[E2M1]]
    for r in range(3):
        for o in range(2):
            by_hand = sum(x[r, i].item() * table[5 * o + i] * 2 ** -b[o] for i in range(5)) + (1 - 2 * o)
            assert_close(y[r, o].item(), by_hand)


def test_shifting_the_weight_by_channel_is_shifting_the_bias_of_the_input():
    """Eqs. 17-19: an integer shift of an input channel may as well scale the row of the weight."""
    x = random((4, 6))[0].detach()
    shift = torch.tensor([0, 1, 2, 3, 0, 2], device=DEVICE)
    codes, exponent_bias = layer(E2M1, 5, 6)
    rho = E2M1.bias(x.abs().max())
    y = fp_linear(x, codes, E2M1, exponent_bias, input_format=E2M1, input_exponent_bias=rho, input_shift=shift)
    weight = decode(unpack4(codes, 6), E2M1, exponent_bias[:, None])
    integers = quantize(x * 2.0**shift, E2M1, rho)  # with one scale for the tensor
    assert_close(y, integers @ (weight * 2.0**-shift).T, rtol=1e-6, atol=1e-6)


CASES = {  # format, input format, (rows..., inputs), outputs, exponent bias per tensor
    "E2M1": (E2M1, None, (5, 71), 19, False),
    "one row": (E2M1, E2M1, (1, 64), 16, False),
    "many inputs": (E2M1, None, (3, 645), 18, False),
    "E1M2, many rows": (E1M2, None, (3, 23, 70), 17, False),
    "E3M0, E1M2 inputs": (E3M0, E1M2, (2, 3, 33), 20, False),
    "E2M1, E4M3 inputs, many rows": (E2M1, E4M3, (70, 40), 9, False),
    "E4M3": (E4M3, FloatFormat(5, 2), (6, 39), 18, False),
    "E3M2 per tensor": (FloatFormat(3, 2), None, (4, 21), 5, True),
    "E1M0": (FloatFormat(1, 0), None, (4, 21), 5, False),
    "E7M0": (FloatFormat(7, 0), FloatFormat(7, 0), (4, 21), 5, False),
    "no rows": (E2M1, E2M1, (0, 21), 5, False),
    "one input": (E2M1, None, (3, 1), 1, True),
}


def case(name: str, dtype: torch.dtype = torch.float32, shift: bool = True) -> tuple:
    """(call, inputs) of a case. Gradients of scalars are sums that cancel: asked for in float32 only."""
    format, input_format, shape, outputs, per_tensor = CASES[name]
    x, bias = random(shape, (outputs,), dtype=dtype)
    codes, exponent_bias = layer(format, outputs, shape[-1], per_tensor)
    wide = torch.promote_types(dtype, torch.float32)
    exponent_bias = exponent_bias.detach().to(wide).requires_grad_(not per_tensor or dtype == torch.float32)
    if input_format is None:
        return lambda x, b, bias: fp_linear(x, codes, format, b, bias), [x, exponent_bias, bias]
    rho = input_format.bias(bias_of(2.1)).to(wide).requires_grad_(dtype == torch.float32)  # clips some inputs
    pre = (torch.arange(shape[-1], device=DEVICE) % 3).to(torch.uint8) if shift else None

    def call(x: Tensor, b: Tensor, bias: Tensor, rho: Tensor) -> Tensor:
        options = {"input_format": input_format, "input_exponent_bias": rho, "input_shift": pre}
        return fp_linear(x, codes, format, b, bias, **options)

    return call, [x, exponent_bias, bias, rho]


@pytest.mark.parametrize("name", CASES)
def test_torch_agrees_with_the_reference(name):
    agrees("fp_linear", "torch", *case(name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shift", [True, False], ids=["shift", "no shift"])
def test_torch_agrees_in_other_precisions(dtype, shift):
    agrees("fp_linear", "torch", *case("E3M0, E1M2 inputs", dtype, shift))
    agrees("fp_linear", "torch", *case("E4M3", dtype, shift))


@pytest.mark.parametrize("name", ["E2M1", "E1M2, many rows", "E3M2 per tensor"])
def test_looking_the_weight_up_again_for_backward_as_on_a_gpu_changes_no_gradient(name):
    format, _, shape, outputs, per_tensor = CASES[name]
    codes, exponent_bias = layer(format, outputs, shape[-1], per_tensor)
    inputs = [*random(shape), exponent_bias, *random((outputs,), seed=1)]
    again = run("fp_linear", "torch", lambda x, b, bias: lookup._Product.apply(x, codes, format, b, bias), inputs)
    kept = run("fp_linear", "torch", lambda x, b, bias: fp_linear(x, codes, format, b, bias), inputs)
    assert_close(again, kept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_triton_agrees_with_the_reference(name, dtype):
    pytest.importorskip("triton")
    agrees("fp_linear", "triton", *case(name, dtype))


def test_triton_agrees_without_shift_and_for_inputs_that_are_not_contiguous():
    pytest.importorskip("triton")
    call, (x, *rest) = case("E3M0, E1M2 inputs", shift=False)
    agrees("fp_linear", "triton", lambda x, *rest: call(x.mT, *rest), [x.detach().mT.clone().requires_grad_(), *rest])


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_compiles_to_one_graph(backend):
    if backend == "triton":
        pytest.importorskip("triton")
    compiles("fp_linear", backend, *case("E3M0, E1M2 inputs"))


def test_the_weight_takes_little_more_than_a_quarter_of_sixteen_bits():
    codes, exponent_bias = layer(E2M1, 256, 1024)
    assert (codes.nbytes + 4 * exponent_bias.numel()) / (2 * 256 * 1024) <= 0.27


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"codes": torch.zeros(4, 6, dtype=torch.uint8)},
            r"codes \(4, 6\) of E2M1 .* expected \(4, 3\), two codes a byte",
        ),
        ({"format": E4M3}, r"codes \(4, 3\) of E4M3 .* expected \(4, 6\)"),
        ({"exponent_bias": torch.zeros(3)}, r"exponent_bias \(3,\) .* expected \(4,\) or \(\)"),
        ({"bias": torch.zeros(6)}, r"bias \(6,\) do not fit 4 outputs"),
        ({"input_format": E2M1}, "input_format and input_exponent_bias go together"),
        ({"input_format": E2M1, "input_exponent_bias": torch.zeros(6)}, "must be a scalar"),
        ({"input_shift": torch.zeros(6)}, r"input_shift \(6,\) with input_format None"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    fitting = {"codes": torch.zeros(4, 3, dtype=torch.uint8), "format": E2M1, "exponent_bias": torch.zeros(4)}
    with pytest.raises(ValueError, match=message):
        fp_linear(torch.zeros(2, 6), **{**fitting, **change})

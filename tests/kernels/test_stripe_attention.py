"""Stripe attention against the loop over stripes, and that against masked attention and a convolution by hand."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from compare import LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close

import kernels
from kernels.attention import attention
from kernels.stripe_attention import stripe_attention

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
SHAPES = {  # B, h, H, W, d, stripe, pad
    "one_pixel": (2, 1, 1, 1, 4, 1, False),
    "stripes_of_one_pixel": (2, 2, 2, 3, 4, 1, False),
    "stripes_of_two": (1, 4, 4, 2, 8, 2, False),
    "odd_width": (1, 2, 6, 9, 5, 3, False),
    "the_whole_map_by_three_heads": (1, 3, 5, 7, 8, 7, False),
    "wider_than_high": (1, 2, 3, 6, 4, 3, False),
    "padded": (2, 2, 4, 5, 4, 3, True),
    "padded_on_one_side": (1, 2, 2, 5, 4, 4, True),
    "several_tiles_a_stripe": (1, 2, 33, 2, 16, 4, True),
    "tiles_without_tokens_to_spare": (1, 1, 8, 8, 32, 8, False),
}


def tensors(B, h, H, W, d, dtype=torch.float32, scale=1.0):
    """q, k, v, the weight and the bias of LePE."""
    return random(*[(B, h, H * W, d)] * 3, (h * d, 1, 3, 3), (h * d,), dtype=dtype, scale=scale)


def with_lepe(H, W, stripe, pad=False, **options):
    return lambda q, k, v, weight, bias: stripe_attention(
        q, k, v, size=(H, W), stripe=stripe, lepe_weight=weight, lepe_bias=bias, pad=pad, **options
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_backend_equals_reference_in_outputs_and_all_gradients(shape, backend):
    B, h, H, W, d, stripe, pad = shape
    agrees("stripe_attention", backend, with_lepe(H, W, stripe, pad), tensors(B, h, H, W, d))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 2, 4, 2, 8, 2, False), (1, 2, 3, 4, 4, 3, True)], ids=["whole", "padded"])
def test_lepe_is_optional_and_so_is_its_bias(shape, backend):
    B, h, H, W, d, stripe, pad = shape
    q, k, v, weight, _ = tensors(B, h, H, W, d)
    call = with_lepe(H, W, stripe, pad, scale=0.3)
    agrees("stripe_attention", backend, lambda q, k, v: call(q, k, v, None, None), [q, k, v])
    agrees("stripe_attention", backend, lambda q, k, v, weight: call(q, k, v, weight, None), [q, k, v, weight])


@needs_triton
@pytest.mark.parametrize("dtype", LOW_PRECISION)
@pytest.mark.parametrize("shape", [(1, 2, 4, 4, 16, 2), (1, 1, 12, 12, 16, 12)], ids=["one_tile", "several_tiles"])
def test_triton_equals_reference_in_every_dtype(shape, dtype):
    B, h, H, W, d, stripe = shape
    agrees("stripe_attention", "triton", with_lepe(H, W, stripe), tensors(B, h, H, W, d, dtype), factor=2.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_are_right(backend):
    agrees("stripe_attention", backend, with_lepe(4, 4, 2), tensors(1, 2, 4, 4, 8, scale=5.0), factor=3.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_one_projection_are_read_where_they_lie(backend):
    (qkv,) = random((2, 8, 3 * 2 * 8))

    def call(qkv):
        q, k, v = qkv.unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return stripe_attention(q, k, v, size=(2, 4), stripe=2).transpose(1, 2).flatten(2)

    agrees("stripe_attention", backend, call, [qkv])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_result_lies_with_the_heads_beside_each_other(backend):
    q, k, v, *_ = tensors(1, 4, 4, 6, 8)
    with kernels.using(stripe_attention=backend):
        assert stripe_attention(q, k, v, size=(4, 6), stripe=2).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("backend", BACKENDS)
def test_stripe_attention_compiles_in_one_graph(backend):
    compiles("stripe_attention", backend, with_lepe(3, 2, 2, True), tensors(1, 2, 3, 2, 16))


def by_hand(q, k, v, weight, bias, size, stripe):
    """Attention masked to the stripes, plus the convolution tap by tap."""
    h, N, d = q.shape[1:]
    y, x = torch.arange(N) // size[1], torch.arange(N) % size[1]
    same = torch.stack([x // stripe, y // stripe])  # the vertical and the horizontal stripe of each pixel
    same = (same[:, :, None] == same[:, None]).repeat_interleave(h // 2, 0)
    with kernels.using(attention="reference"):
        out = attention(q, k, v, mask=same)
    for head in range(h):
        for i in range(N):
            for j in range(N):
                dy, dx = int(y[j] - y[i]), int(x[j] - x[i])
                if abs(dy) <= 1 and abs(dx) <= 1 and same[head, i, j]:
                    tap = weight[head * d : head * d + d, 0, dy + 1, dx + 1]
                    out[:, head, i] = out[:, head, i] + tap * v[:, head, j]
    return out + bias.view(h, 1, d)


@pytest.mark.parametrize("stripe", [1, 2])
def test_the_reference_is_masked_attention_plus_a_convolution_within_stripes(stripe):
    inputs = [x.detach().double() for x in tensors(1, 4, 4, 6, 3)]
    with kernels.using(stripe_attention="reference"):
        assert_close(with_lepe(4, 6, stripe)(*inputs), by_hand(*inputs, (4, 6), stripe))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_padding_takes_part_as_keys_of_score_zero(backend):
    q, k, v = torch.zeros(1, 2, 25, 4), torch.zeros(1, 2, 25, 4), torch.ones(1, 2, 25, 4)
    with kernels.using(stripe_attention=backend):
        y = stripe_attention(q, k, v, size=(5, 5), stripe=3, pad=True).view(2, 5, 5, 4)
    # padded to 6: none on the left, one on the right, so 15 of the 18 pixels of the last stripe are real or 10
    assert_close(y[0, :, :3], torch.ones(5, 3, 4))
    assert_close(y[0, :, 3:], torch.full((5, 2, 4), 10 / 15))
    assert_close(y[1, 3:], torch.full((2, 5, 4), 10 / 15))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_padding_is_the_same_as_zeros_around_the_map_with_one_more_at_the_end(backend):
    q, k, v, weight, bias = (x.detach() for x in tensors(1, 2, 3, 5, 4))
    wide = [F.pad(x.unflatten(2, (3, 5)), (0, 0, 1, 2)).flatten(2, 3) for x in (q, k, v)]  # 5 + 3 columns for 2 stripes
    with kernels.using(stripe_attention=backend):
        y = with_lepe(3, 5, 4, True)(q, k, v, weight, bias)
        z = with_lepe(3, 8, 4, True)(*wide, weight, bias).unflatten(2, (3, 8))
    assert_close(y[:, 0].unflatten(1, (3, 5)), z[:, 0, :, 1:6])  # the head of the vertical stripes


def test_the_gradient_of_a_pixel_reaches_its_cross_and_nothing_else():
    q, k, v, weight, bias = tensors(1, 2, 6, 6, 4)
    with_lepe(6, 6, 2)(q, k, v, weight, bias)[0, :, 3 * 6 + 2].sum().backward()
    reached = v.grad.abs().sum((0, 1, 3)).view(6, 6) > 0
    cross = torch.zeros(6, 6, dtype=torch.bool)
    cross[:, 2:4] = cross[2:4] = True
    assert reached.equal(cross)


@pytest.mark.parametrize(
    ("heads", "size", "options", "message"),
    [
        (
            2,
            (16, 16),
            {"stripe": 7},
            "map 16x16 is not divisible by stripe=7; set pad=True or stripe in 1, 2, 4, 8, 16",
        ),
        (3, (4, 4), {"stripe": 2}, "3 heads cannot be halved"),
        (2, (4, 4), {"stripe": 0}, "stripe=0 must be at least 1"),
        (2, (4, 4), {"stripe": 2, "lepe_bias": torch.zeros(8)}, "lepe_bias is given without lepe_weight"),
        (2, (4, 4), {"stripe": 2, "lepe_weight": torch.zeros(4, 1, 3, 3)}, r"expected \(8, 1, 3, 3\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(heads, size, options, message):
    q = torch.zeros(1, heads, size[0] * size[1], 4)
    with pytest.raises(ValueError, match=message):
        stripe_attention(q, q, q, size=size, **options)
    with pytest.raises(ValueError, match=r"do not fit a map of 3x5: expected \(B, h, 15, d\)"):
        stripe_attention(q, q, q, size=(3, 5), stripe=1)

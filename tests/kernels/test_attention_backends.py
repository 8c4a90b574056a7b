"""Attention of every backend against the reference, outputs and gradients, under all options and their combinations.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import sys

import pytest
import torch
from attention_calls import NEEDS_TRITON, integers, masks, tensors, with_lse, without_lse
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random, run

import kernels

SHAPES = {  # B, h, g, T, S, d, e
    "one_token": (2, 2, 2, 1, 1, 4, 5),
    "odd": (2, 3, 3, 7, 7, 5, 6),
    "more_keys": (1, 2, 2, 5, 9, 8, 8),
    "more_queries": (1, 2, 2, 9, 5, 8, 8),
    "grouped": (2, 4, 2, 6, 8, 4, 4),
    "short_on_a_cpu": (2, 3, 3, 20, 17, 5, 6),
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

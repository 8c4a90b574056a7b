"""Joint local and global attention: the backends against the equation, the equation against a loop over tokens."""

import importlib.util

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import kernels
from kernels.joint_local_global_attention import joint_local_global_attention

OP = "joint_local_global_attention"
TRITON = pytest.param(
    "triton", marks=pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")
)
FAST = ["torch", TRITON]
ALL = ["reference", *FAST]
SHAPES = {  # B, S, d, e1, e2, P
    "one_token": (2, 1, 3, 2, 4, 4),
    "one_short_chunk": (2, 5, 4, 3, 3, 8),
    "whole_chunks": (2, 12, 4, 5, 2, 4),
    "last_chunk_shorter": (2, 19, 5, 3, 7, 6),
    "chunks_of_one": (1, 5, 3, 2, 2, 1),
    "wide_values": (1, 9, 2, 140, 35, 6),
    "blocks_within_a_chunk": (1, 150, 4, 3, 2, 130),
}


def tensors(B, S, d, e1, e2, P, **options):
    return random(*4 * [(B, S, d)], (B, S, e1), (B, S, e2), **options)


def padding(B, S):
    """The last sequence is half as long; its first token is missing too."""
    mask = torch.ones(B, S, dtype=torch.bool, device=DEVICE)
    mask[-1, (S + 1) // 2 :] = False
    mask[-1, 0] = False
    return mask


def call(P, **options):
    return lambda *inputs: joint_local_global_attention(*inputs, group=P, **options)


@pytest.mark.parametrize("padded", [False, True], ids=["all_tokens", "padded"])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("backend", FAST)
def test_backends_equal_the_reference_in_outputs_and_all_gradients(backend, shape, causal, padded):
    dtype = torch.float32 if backend == "triton" else torch.float64
    mask = padding(*shape[:2]) if padded else None
    agrees(OP, backend, call(shape[-1], causal=causal, mask=mask), tensors(*shape, dtype=dtype))


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("backend", FAST)
def test_low_precision_stays_close_to_float64(backend, dtype, causal):
    shape = (2, 40, 16, 20, 24, 16)
    agrees(OP, backend, call(16, causal=causal), tensors(*shape, dtype=dtype), factor=2)


@pytest.mark.parametrize("backend", FAST)
def test_large_inputs_agree(backend):
    agrees(OP, backend, call(8), tensors(1, 20, 4, 3, 3, 8, scale=30.0))


def test_the_linear_part_adds_up_over_many_spans_of_tokens():
    pytest.importorskip("triton")
    agrees(OP, "triton", call(128), tensors(1, 530, 2, 3, 2, 128))


@pytest.mark.parametrize("backend", FAST)
def test_values_may_be_halves_of_one_tensor(backend):
    q, k, qg, kg, w = random(*4 * [(2, 12, 4)], (2, 12, 10))
    agrees(OP, backend, lambda *x: joint_local_global_attention(*x[:4], *x[4].split(5, -1), group=4), [q, k, qg, kg, w])


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_the_reference_is_the_written_sum_over_tokens(causal):
    B, S, P = 2, 11, 4
    q, k, qg, kg, *values = (x.detach() for x in tensors(B, S, 3, 2, 5, P, dtype=torch.float64))
    mask = padding(B, S)
    with kernels.using(joint_local_global_attention="reference"):
        outputs = joint_local_global_attention(q, k, qg, kg, *values, group=P, mask=mask, causal=causal)
    for x, y in zip(values, outputs, strict=True):
        for b in range(B):
            tokens = [j for j in range(S) if mask[b, j]]
            for i in range(S):
                expected = torch.zeros_like(y[b, i])
                for j in tokens:
                    if i // P == j // P and (j <= i or not causal):
                        expected += torch.relu(q[b, i] @ k[b, j] / P) ** 2 * x[b, j]
                    if not causal or j // P < i // P:
                        expected += (qg[b, i] @ kg[b, j]) * x[b, j] / (P if causal else len(tokens))
                assert_close(y[b, i], expected)


@pytest.mark.parametrize("backend", ALL)
def test_a_sequence_gets_the_same_alone_and_padded(backend):
    inputs = [x.detach() for x in tensors(2, 14, 4, 3, 3, 4)]
    mask = torch.ones(2, 14, dtype=torch.bool, device=DEVICE)
    mask[1, 9:] = False
    with kernels.using(joint_local_global_attention=backend, strict=True):
        together = joint_local_global_attention(*inputs, group=4, mask=mask)
        alone = joint_local_global_attention(*(x[1:, :9] for x in inputs), group=4)
    assert_close([y[1:, :9] for y in together], list(alone))


@pytest.mark.parametrize("backend", ALL)
def test_without_any_token_there_is_nothing_and_gradients_stay_finite(backend):
    inputs = tensors(2, 6, 3, 2, 2, 4)
    mask = torch.tensor([[False], [True]], device=DEVICE).expand(2, 6)
    with kernels.using(joint_local_global_attention=backend, strict=True):
        outputs = joint_local_global_attention(*inputs, group=4, mask=mask)
        gradients = torch.autograd.grad(sum(y.sum() for y in outputs), inputs)
    assert all((y[0] == 0).all() for y in outputs)
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("backend", ALL)
def test_causal_outputs_do_not_depend_on_later_tokens(backend):
    inputs = [x.detach() for x in tensors(1, 11, 3, 2, 2, 4)]
    with kernels.using(joint_local_global_attention=backend, strict=True):
        whole = joint_local_global_attention(*inputs, group=4, causal=True)
        start = joint_local_global_attention(*(x[:, :6] for x in inputs), group=4, causal=True)
    assert_close([y[:, :6] for y in whole], list(start))


@pytest.mark.parametrize("backend", ALL)
def test_dropout_drops_the_same_weights_for_both_streams_and_backward(backend):
    torch.manual_seed(0)
    P, C, p = 16, 3, 0.25
    q, k, u = random((2, C * P, 4), (2, C * P, 4), (2, C * P, 3))
    zero = torch.zeros_like(q)
    v = torch.eye(P, device=DEVICE).repeat(2, C, 1).requires_grad_()  # with which att_v is the weights
    with kernels.using(joint_local_global_attention=backend, strict=True):
        att_v, att_u = joint_local_global_attention(q, k, zero, zero, v, u, group=P, dropout=p)

    q_, k_, u_, v_ = (x.unflatten(1, (C, P)) for x in (q, k, u, v))
    full = torch.relu(q_ @ k_.mT / P) ** 2
    weights = att_v.detach().unflatten(1, (C, P))
    kept = weights > 0
    assert_close(weights, torch.where(kept, full / (1 - p), 0.0).detach())
    assert kept[full > 0].float().mean().item() == pytest.approx(1 - p, abs=0.06)
    by_hand = full * kept / (1 - p)
    expected = [(by_hand @ v_).flatten(1, 2), (by_hand @ u_).flatten(1, 2)]
    assert_close(att_u, expected[1])
    upstream = [torch.randn_like(y) for y in expected]
    ours, theirs = (torch.autograd.grad(y, (q, k, v, u), upstream) for y in ([att_v, att_u], expected))
    assert_close(ours, theirs)


def test_gradients_agree_with_finite_differences():
    function = call(4, dropout=0.0)
    assert torch.autograd.gradcheck(function, tensors(1, 7, 2, 2, 1, 4, dtype=torch.float64))


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("backend", FAST)
def test_compiles_as_one_graph(backend, causal):
    compiles(OP, backend, call(4, causal=causal, mask=padding(2, 10)), tensors(2, 10, 3, 2, 4, 4))


def test_autocast_computes_in_its_dtype():
    inputs = tensors(1, 10, 4, 3, 3, 4)
    inputs[4] = inputs[4].detach().bfloat16().requires_grad_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        outputs = joint_local_global_attention(*inputs, group=4)
    assert [y.dtype for y in outputs] == 2 * [torch.bfloat16]
    gradients = torch.autograd.grad(sum(y.sum() for y in outputs), inputs)
    assert [g.dtype for g in gradients] == [x.dtype for x in inputs]
    exact = joint_local_global_attention(*(x.float() for x in inputs), group=4)
    assert_close([y.float() for y in outputs], list(exact), rtol=0.05, atol=0.05)


def test_memory_grows_with_the_chunks_not_with_the_square_of_the_tokens():
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            self.numbers = max(self.numbers, *(x.numel() for x in torch.utils._pytree.tree_leaves(made)))
            return made

    inputs = tensors(1, 512, 4, 4, 4, 16)
    with kernels.using(joint_local_global_attention="torch"), Largest() as largest:
        sum(y.sum() for y in joint_local_global_attention(*inputs, group=16)).backward()
    assert largest.numbers <= 512 * 16


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({1: (1, 8, 5)}, {}, r"k_local \(1, 8, 5\).*expected four times \(B, S, d\)"),
        ({5: (1, 7, 3)}, {}, r"u \(1, 7, 3\).*\(B, S, e2\)"),
        ({}, {"group": 0}, "group=0 must be at least 1"),
        ({}, {"dropout": 1.0}, "dropout=1.0 must be"),
        ({}, {"mask": torch.ones(1, 8)}, r"mask \(1, 8\) of torch.float32 must be \(1, 8\) of torch.bool"),
    ],
    ids=["keys", "values", "group", "dropout", "mask"],
)
def test_arguments_that_do_not_fit_are_named(change, options, message):
    shapes = [change.get(i, (1, 8, 4) if i < 4 else (1, 8, 3)) for i in range(6)]
    with pytest.raises(ValueError, match=message):
        joint_local_global_attention(*random(*shapes), **{"group": 4, **options})


def test_dtypes_must_be_the_same():
    inputs = tensors(1, 4, 2, 2, 2, 2)
    inputs[2] = inputs[2].double()
    with pytest.raises(ValueError, match=r"float32, torch.float32, torch.float64.*must be the same"):
        joint_local_global_attention(*inputs, group=2)


@pytest.mark.parametrize(
    ("d", "P", "message"), [(4, 1024, "groups of 1024"), (300, 4, "width 300"), (256, 512, "groups of 512.*width 256")]
)
def test_triton_says_what_it_cannot_hold(d, P, message):
    pytest.importorskip("triton")
    with (
        kernels.using(joint_local_global_attention="triton", strict=True),
        pytest.raises(ValueError, match=f"does not do .*{message}"),
    ):
        joint_local_global_attention(*tensors(1, 4, d, 2, 2, P), group=P)

"""Block-sparse attention against the whole map masked element by element: outputs and all gradients."""

import pytest
import torch
import torch.nn.functional as F
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import kernels
from kernels.block_sparse_attention import BlockMask, block_sparse_attention, gathered, patterns

OP = "block_sparse_attention"
BACKENDS = ["torch", "triton"]


def ragged(shape, block, density, kinds, seed=0):
    """Random kept blocks, of more than two rows one empty and one full; with `kinds` patterns some are kept in part."""
    B, h, T, S = shape
    rng = torch.Generator().manual_seed(seed)
    nq, nk = -(-T // block), -(-S // block)
    keep = torch.rand(B, h, nq, nk, generator=rng) < density
    if nq > 2:
        keep[:, :, 0], keep[:, :, 1] = False, True
    if not kinds:
        return BlockMask(keep, block, (T, S)).to(DEVICE)
    elements = torch.randint(-1, kinds, keep.shape, generator=rng).short()
    tiles = torch.rand(kinds, block, block, generator=rng) < 0.4
    tiles[0, 3] = False  # a query without any key of this block
    return BlockMask(keep, block, (T, S), elements, tiles).to(DEVICE)


CASES = {  # (B, h, T, S, d, e), the mask's (B, h), block, density, number of patterns
    "one_block": ((1, 1, 16, 16, 16, 16), (1, 1), 16, 1.0, 0),
    "one_query": ((2, 1, 1, 3, 4, 4), (1, 1), 16, 1.0, 0),
    "odd": ((2, 2, 37, 53, 5, 7), (2, 2), 16, 0.5, 0),
    "patterns": ((1, 2, 48, 48, 16, 16), (1, 2), 16, 0.7, 3),
    "odd_patterns": ((1, 2, 50, 37, 12, 20), (1, 2), 16, 0.6, 2),
    "one_mask_for_all": ((2, 2, 34, 40, 8, 8), (1, 1), 16, 0.4, 2),
    "one_mask_per_sample": ((2, 2, 40, 34, 8, 8), (2, 1), 16, 0.4, 0),
    "larger_blocks": ((1, 1, 70, 130, 8, 8), (1, 1), 64, 0.6, 1),
    "nothing_kept": ((1, 2, 32, 32, 8, 8), (1, 1), 16, 0.0, 0),
}


def case(name, dtype=torch.float32, scale=1.0):
    (B, h, T, S, d, e), mask, *how = CASES[name]
    inputs = random((B, h, T, d), (B, h, S, d), (B, h, S, e), dtype=dtype, scale=scale)
    return inputs, ragged((*mask, T, S), *how)


@pytest.fixture
def cuts_small_maps(monkeypatch):
    """Without it, torch's version computes maps as small as those of tests as a whole."""
    monkeypatch.setattr(gathered, "DENSE", 0)
    monkeypatch.setattr(gathered, "DENSE_IF_FULL", 0)


def check(backend):
    if backend == "triton":
        pytest.importorskip("triton")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_equals_reference_in_outputs_lse_and_all_gradients(backend, name):
    check(backend)
    inputs, mask = case(name)
    agrees(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=True), inputs)


@pytest.mark.parametrize("name", ["odd", "nothing_kept"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_equals_reference_where_only_the_output_is_used(backend, name, cuts_small_maps):
    check(backend)
    inputs, mask = case(name)
    agrees(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask, scale=0.7), inputs)


@pytest.mark.parametrize("name", CASES)
def test_small_maps_taken_as_a_whole_equal_reference(name):
    inputs, mask = case(name)
    agrees(OP, "torch", lambda q, k, v: block_sparse_attention(q, k, v, mask), inputs)


@pytest.mark.parametrize("together", [1, 3 * 16 * 16, 2**18], ids=["one_block", "three_blocks", "all"])
def test_torch_may_take_any_number_of_blocks_together(together, monkeypatch):
    monkeypatch.setitem(gathered.CHUNK, DEVICE, together)
    monkeypatch.setattr(gathered, "PADDING", 0)
    inputs, mask = case("odd_patterns")
    agrees(OP, "torch", lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=True), inputs)


def test_torch_has_no_tensor_of_the_size_of_the_map():
    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            self.largest = max([self.largest, *(x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor))])
            return made

    n = 2048
    mask = patterns.sliding_window(n, 32, 40).to(DEVICE)
    q = torch.randn(1, 1, n, 8, device=DEVICE)
    lists = (*mask.rows()[:4], mask.patterns, [1, 1], 1.0)
    with Sizes() as sizes:
        y, lse = gathered._forward._init_fn(q, q, q, *lists)  # what runs within the custom op
        gathered._backward._init_fn(y, lse, q, q, q, y, lse, *lists)
    assert sizes.largest < n * n / 8


@pytest.mark.parametrize("block", [1, 5, 12])
def test_torch_takes_blocks_of_any_size(block, cuts_small_maps):
    inputs = random((1, 2, 29, 8), (1, 2, 31, 8), (1, 2, 31, 8))
    mask = ragged((1, 2, 29, 31), block, 0.5, 0)
    agrees(OP, "torch", lambda q, k, v: block_sparse_attention(q, k, v, mask), inputs)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_agrees_with_float64(backend, dtype, cuts_small_maps):
    check(backend)
    inputs, mask = case("odd_patterns", dtype)
    agrees(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=True), inputs, factor=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_stay_exact(backend, cuts_small_maps):
    check(backend)
    inputs, mask = case("odd_patterns", scale=20.0)
    agrees(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask), inputs)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["odd", "odd_patterns", "one_mask_for_all"])
def test_flex_equals_reference_in_outputs(name):
    inputs, mask = case(name)
    inputs = [x.detach() for x in inputs]  # on a CPU it has no gradients
    agrees(OP, "flex", lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=True), inputs)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_compiles_as_one_graph():
    inputs, mask = case("odd_patterns")
    compiles(OP, "flex", lambda q, k, v: block_sparse_attention(q, k, v, mask), [x.detach() for x in inputs])


@pytest.mark.parametrize("made_before", [True, False], ids=["lists_made_before", "lists_made_inside"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend, made_before, cuts_small_maps):
    check(backend)
    inputs, mask = case("odd_patterns")
    if made_before:
        mask.rows(), mask.columns()
    compiles(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=True), inputs)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_query_attends_to_its_kept_keys_and_no_others(backend, cuts_small_maps):
    check(backend)
    inputs, mask = case("odd_patterns")
    q, k, v = (x.detach() for x in inputs)
    kept = mask.dense().expand(q.shape[0], -1, -1, -1)
    with kernels.using(block_sparse_attention=backend), torch.no_grad():
        y, lse = block_sparse_attention(q, k, v, mask, return_lse=True)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        keys = kept[b, h, i].nonzero()[:, 0]
        weights = torch.tensor([float((q[b, h, i] * k[b, h, j]).sum() / 12**0.5) for j in keys]).exp()
        assert_close(
            y[b, h, i].cpu(), (weights @ v[b, h, keys].cpu()) / max(weights.sum(), 1e-30), atol=1e-4, rtol=1e-4
        )
        assert_close(lse[b, h, i].exp().item(), weights.sum().item(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_queries_without_keys_give_zeros_and_finite_gradients(backend, cuts_small_maps):
    check(backend)
    inputs, mask = case("odd_patterns")
    with kernels.using(block_sparse_attention=backend):
        y, lse = block_sparse_attention(*inputs, mask, return_lse=True)
        grads = torch.autograd.grad(y.sum() + lse[lse.isfinite()].sum(), inputs)
    empty = ~mask.dense().any(-1)
    assert empty.any()
    assert (y[empty.expand(y.shape[:3])] == 0).all()
    assert (lse[empty.expand(y.shape[:3])] == -torch.inf).all()
    assert all(g.isfinite().all() for g in grads)


def test_a_mask_that_keeps_all_is_attention():
    q, k, v = (x.detach() for x in random((2, 2, 33, 8), (2, 2, 33, 8), (2, 2, 33, 8)))
    mask = BlockMask(torch.ones(1, 1, 3, 3, dtype=torch.bool), 16, (33, 33)).to(DEVICE)
    with kernels.using(block_sparse_attention="reference"):
        assert_close(block_sparse_attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v))


def test_shapes_that_do_not_fit_are_named():
    q, mask = torch.zeros(1, 2, 20, 4), BlockMask(torch.ones(1, 1, 2, 2, dtype=torch.bool), 16, (20, 20))
    with pytest.raises(ValueError, match=r"v \(1, 2, 19, 4\) do not fit: expected \(B, h, T, d\)"):
        block_sparse_attention(q, q, q[:, :, 1:], mask)
    with pytest.raises(ValueError, match=r"mask is for 20 x 20 tokens.*q has 20 and k 30"):
        block_sparse_attention(q, torch.zeros(1, 2, 30, 4), torch.zeros(1, 2, 30, 4), mask)
    per_head = BlockMask(mask.keep.expand(1, 3, 2, 2), 16, (20, 20))
    with pytest.raises(ValueError, match=r"\(B, h\) = \(1, 3\); q has .* \(1, 2\)"):
        block_sparse_attention(q, q, q, per_head)


def test_triton_names_what_it_does_not_do():
    pytest.importorskip("triton")
    q = torch.zeros(1, 1, 24, 4, device=DEVICE)
    mask = BlockMask(torch.ones(1, 1, 2, 2, dtype=torch.bool), 12, (24, 24)).to(DEVICE)
    with kernels.using(block_sparse_attention="triton", strict=True):
        with pytest.raises(ValueError, match="does not do blocks of 12 tokens"):
            block_sparse_attention(q, q, q, mask)
        wide = torch.zeros(1, 1, 24, 300, device=DEVICE)
        with pytest.raises(ValueError, match="does not do head dimension 300"):
            block_sparse_attention(wide, wide, wide, patterns.diagonal(24, 16, 1).to(DEVICE))

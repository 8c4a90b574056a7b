"""Block masses against the block sums of softmax, and what AdaSpa keeps by them."""

from importlib.util import find_spec

import pytest
import torch
from compare import LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close

import kernels
from kernels.block_mass import block_mass, head_sparsity, keep_blocks, recall

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
SHAPES = {  # B, h, T, S, d, block
    "one_token": (1, 1, 1, 1, 4, 1),
    "one_block": (2, 2, 16, 16, 16, 16),
    "odd": (1, 2, 75, 75, 24, 12),
    "several_query_blocks_a_program": (1, 1, 100, 50, 32, 32),
    "more_keys": (1, 2, 20, 130, 8, 64),
    "more_queries": (2, 1, 140, 33, 16, 64),
}


def searched(B, h, T, S, d, block, dtype=torch.float32, scale=1.0):
    """q, k, the log-sum-exp of their scores."""
    q, k = (x.detach() for x in random((B, h, T, d), (B, h, S, d), dtype=dtype, scale=scale))
    return q, k, torch.logsumexp(d**-0.5 * q.double() @ k.double().transpose(-1, -2), -1).float()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_backend_equals_reference(shape, backend):
    agrees("block_mass", backend, lambda q, k, lse: block_mass(q, k, lse, block=shape[-1]), searched(*shape))


@needs_triton
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_triton_equals_reference_in_every_dtype(dtype):
    inputs = searched(1, 2, 40, 40, 16, 16, dtype)
    agrees("block_mass", "triton", lambda q, k, lse: block_mass(q, k, lse, block=16), inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_a_given_scale_and_strided_tensors_are_right(backend):
    q, k, _ = (x.transpose(1, 2) for x in searched(1, 37, 3, 3, 16, 16, scale=20.0))
    lse = torch.logsumexp(0.5 * q.double() @ k.double().transpose(-1, -2), -1).float()
    agrees("block_mass", backend, lambda q, k, lse: block_mass(q, k, lse, block=8, scale=0.5), [q, k, lse])


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_keys_and_queries_without_keys_add_nothing(backend):
    q, k, lse = searched(4, 2, 40, 40, 8, 16)
    lse[0, 0, 3] = -torch.inf
    k[1, :, 20:] = 1e4  # would overflow
    lengths = torch.tensor([40, 20, 32, 0])
    agrees(
        "block_mass",
        backend,
        lambda q, k, lse: block_mass(q, k, lse, block=16, key_lengths=lengths.to(q.device)),
        [q, k, lse],
    )
    with kernels.using(block_mass=backend):
        mass = block_mass(q, k, lse, block=16, key_lengths=lengths)
    assert mass.isfinite().all()
    assert (mass[1, :, :, 2] == 0).all() and (mass[3] == 0).all()


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_masses_are_the_block_sums_of_softmax_and_rows_sum_to_the_queries(backend):
    q, k, lse = searched(1, 2, 40, 40, 8, 16)
    with kernels.using(block_mass=backend):
        mass = block_mass(q, k, lse, block=16)
    weights = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5, -1)
    for p in range(3):
        for r in range(3):
            ours = weights[:, :, 16 * p : 16 * p + 16, 16 * r : 16 * r + 16].sum((-2, -1))
            assert_close(mass[:, :, p, r], ours, rtol=0, atol=1e-4)
    assert_close(mass.sum(-1), torch.tensor([16.0, 16.0, 8.0]).expand(1, 2, 3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_search_compiles_in_one_graph(backend):
    compiles("block_mass", backend, lambda q, k, lse: block_mass(q, k, lse, block=16), searched(*SHAPES["odd"]))


def test_gradients_stop_at_the_search():
    q, k = random((1, 1, 8, 4), (1, 1, 8, 4))
    assert not block_mass(q, k, torch.zeros(1, 1, 8), block=4).requires_grad


def test_the_torch_version_gives_the_same_in_many_small_steps(monkeypatch):
    from kernels.block_mass import chunked

    monkeypatch.setitem(chunked.SCORES, "cpu", 1)
    agrees("block_mass", "torch", lambda q, k, lse: block_mass(q, k, lse, block=12), searched(*SHAPES["odd"]))


def test_arguments_that_do_not_fit_are_named():
    q, k, lse = searched(1, 2, 8, 6, 4, 4)
    with pytest.raises(ValueError, match=r"lse \(1, 2, 7\) do not fit"):
        block_mass(q, k, lse[..., 1:], block=4)
    with pytest.raises(ValueError, match="block=0"):
        block_mass(q, k, lse, block=0)
    with pytest.raises(ValueError, match=r"key_lengths has shape \(3,\), expected \(1,\)"):
        block_mass(q, k, lse, block=4, key_lengths=torch.tensor([1, 2, 3]))


def test_every_query_keeps_the_same_number_of_its_heaviest_blocks():
    mass = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    keep = keep_blocks(mass, tokens=75, block=8, sparsity=0.7, head_adaptive=False)
    assert (keep.sum(-1) == 3).all()
    assert (mass.where(keep, torch.inf).amin(-1) >= mass.where(~keep, -torch.inf).amax(-1)).all()


def test_blocks_with_text_are_kept_outside_the_budget():
    mass = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    last = keep_blocks(mass, tokens=22, block=4, sparsity=0.5, video=(0, 18), head_adaptive=False)  # blocks 4, 5: text
    assert last[..., 4:].all() and last[..., 4:, :].all()
    assert (last[..., :4, :4].sum(-1) == 2).all()
    first = keep_blocks(mass, tokens=22, block=4, sparsity=0.6, video=(2, 22), head_adaptive=False)  # block 0: text
    assert first[..., 0].all() and first[..., 0, :].all()
    assert (first[..., 1:, 1:].sum(-1) == 2).all()


def test_recall_of_the_kept_blocks_is_at_least_that_of_any_other_choice_of_as_many_per_row():
    q, k, lse = searched(1, 4, 96, 96, 8, 12, scale=2.0)
    mass = block_mass(q, k, lse, block=12)
    best = recall(mass, keep_blocks(mass, tokens=96, block=12, sparsity=0.75, head_adaptive=False))
    rows = torch.arange(8)
    for shift in range(8):
        pattern = ((rows[:, None] + shift - rows) % 8 < 2).expand_as(mass)
        assert (best >= recall(mass, pattern)).all()


def test_heads_of_high_recall_get_sparser_and_as_many_of_low_recall_denser():
    levels = head_sparsity(torch.tensor([[0.95, 0.9, 0.5, 0.3], [0.3, 0.5, 0.1, 0.85], [0.1, 0.2, 0.3, 0.4]]), 0.8)
    assert_close(levels, torch.tensor([[0.9, 0.9, 0.7, 0.7], [0.8, 0.8, 0.7, 0.9], [0.8, 0.8, 0.8, 0.8]]))
    crowded = head_sparsity(torch.tensor([[0.9, 0.95, 0.85]]), 0.8)  # three above the threshold: one gives to one
    assert_close(crowded, torch.tensor([[0.8, 0.9, 0.7]]))


def test_adaptive_heads_keep_blocks_by_their_own_sample_and_the_mean_stays():
    mass = torch.full((2, 2, 20, 20), 0.01)
    mass[0, 1, :, 2] = 1.0  # in sample 0 the second head is concentrated, in sample 1 the first
    mass[1, 0, :, 7] = 1.0
    keep = keep_blocks(mass, tokens=80, block=4, sparsity=0.8)
    assert (keep.sum(-1)[..., 0] == torch.tensor([[6, 2], [2, 6]])).all()
    assert keep[0, 1, :, 2].all() and keep[1, 0, :, 7].all()
    assert keep.float().mean() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.3}, r"needs sparsity >= 1/3 .* got 0.3"),
        ({"sparsity": 0.99, "head_adaptive": False}, "sparsity 0.99 keeps no block of 19 per row"),
        ({"sparsity": 1.5, "head_adaptive": False}, r"sparsity 1.5 must be in \[0, 1\)"),
        ({"sparsity": 0.8, "block": 80}, "block 80 is larger than the 76 tokens"),
        ({"sparsity": 0.8, "video": (4, 90)}, r"video=\(4, 90\) must be a range within the 76 tokens"),
        ({"sparsity": 0.8, "tokens": 90}, r"does not fit 90 tokens in blocks of 4: ends in 23, 23"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        keep_blocks(torch.rand(1, 2, 19, 19), **{"tokens": 76, "block": 4, **options})

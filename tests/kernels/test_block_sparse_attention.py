"""Block-sparse attention against the whole map masked element by element: outputs and all gradients."""

import pytest
import torch
from compare import DEVICE, LOW_PRECISION, agrees, compiles, random
from torch.testing import assert_close

import kernels
from kernels.block_sparse_attention import BlockMask, block_sparse_attention

OP = "block_sparse_attention"
BACKENDS = ["torch", "triton"]


def ragged(shape, block, density, patterns, seed=0):
    """Random kept blocks, some rows of blocks and some columns without any, others full; some blocks kept in part."""
    B, h, T, S = shape
    rng = torch.Generator().manual_seed(seed)
    nq, nk = -(-T // block), -(-S // block)
    keep = torch.rand(B, h, nq, nk, generator=rng) < density
    if nq > 2:
        keep[:, :, 0], keep[:, :, 1] = False, True
    if nk > 3:
        keep[:, :, 2:, 1] = False
    if not patterns:
        return BlockMask(keep, block, (T, S)).to(DEVICE)
    kinds = torch.randint(-1, patterns, keep.shape, generator=rng).short()
    elements = torch.rand(patterns, block, block, generator=rng) < 0.4
    elements[0, 3] = False  # a query that has no key in this block
    return BlockMask(keep, block, (T, S), kinds, elements).to(DEVICE)


CASES = {  # (B, h, T, S, d, e), the mask's (B, h), block, density, patterns
    "one_block": ((1, 1, 16, 16, 16, 16), (1, 1), 16, 1.0, 0),
    "one_query": ((2, 1, 1, 3, 4, 4), (1, 1), 16, 1.0, 0),
    "odd": ((2, 2, 37, 70, 5, 7), (2, 2), 16, 0.5, 0),
    "patterns": ((2, 2, 64, 48, 16, 16), (2, 2), 16, 0.7, 3),
    "odd_patterns": ((2, 2, 70, 53, 12, 20), (1, 2), 16, 0.6, 2),
    "shared": ((2, 3, 50, 50, 8, 8), (1, 1), 16, 0.4, 2),
    "per_sample": ((2, 3, 40, 64, 8, 8), (2, 1), 16, 0.4, 0),
    "larger_blocks": ((1, 1, 100, 130, 8, 8), (1, 1), 64, 0.6, 1),
    "nothing_kept": ((1, 2, 40, 40, 8, 8), (1, 1), 16, 0.0, 0),
}


def case(name, dtype=torch.float32, scale=1.0):
    (B, h, T, S, d, e), mask, *how = CASES[name]
    inputs = random((B, h, T, d), (B, h, S, d), (B, h, S, e), dtype=dtype, scale=scale)
    return inputs, ragged((*mask, T, S), *how)


@pytest.mark.parametrize("lse", [False, True], ids=["y", "y_and_lse"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_equals_reference_in_outputs_and_all_gradients(backend, name, lse):
    if backend == "triton":
        pytest.importorskip("triton")
    inputs, mask = case(name)
    agrees(OP, backend, lambda q, k, v: block_sparse_attention(q, k, v, mask, return_lse=lse), inputs)

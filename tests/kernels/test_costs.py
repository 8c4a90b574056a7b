"""The cost model against made-up clocks, whose answer is known, and once on the machine itself."""

import pytest
import torch
from compare import DEVICE

import kernels
from kernels.costs import CostModel, fit, kept_blocks, load, random_keep, timer

DENSE = (1e-5, 1e-13)
SPARSE = (3e-5, 4e-8, 1e-7)
SHAPES = [(1, 2, 256, 256), (1, 2, 512, 512), (2, 4, 512, 1024), (1, 8, 1024, 1024)]
WHERE = (torch.device("cpu"), torch.float32, 64)
LONG = (2, 24, 8192, 8192)


def clock(dense=DENSE, sparse=SPARSE, noise=0.0, block=64):
    """A device that takes exactly these times, or up to `noise` of them more or less."""
    rng = torch.Generator().manual_seed(0)

    def time(shape, keep):
        B, h, T, S = shape
        if keep is None:
            seconds = dense[0] + dense[1] * B * h * T * S * 64
        else:
            rows = B * h * -(-T // block)
            seconds = sparse[0] + sparse[1] * kept_blocks(keep, shape, block) + sparse[2] * rows
        return seconds * (1 + noise * (2 * torch.rand((), generator=rng).item() - 1))

    return time


def test_coefficients_are_recovered_exactly():
    model = fit(*WHERE, clock(), shapes=SHAPES)
    assert model.dense == pytest.approx(DENSE, rel=1e-6)
    assert model.sparse == pytest.approx(SPARSE, rel=1e-6)
    assert model.error < 1e-9
    keep = random_keep(model_shape := (1, 2, 300, 700), 64, 0.3)
    assert model.seconds(keep, model_shape) == pytest.approx(clock()(model_shape, keep))
    assert model.seconds(None, model_shape) == pytest.approx(clock()(model_shape, None))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_a_pattern_that_is_slower_than_dense_is_never_chosen(noise):
    model, exact = fit(*WHERE, clock(noise=noise), shapes=SHAPES), clock()
    chosen = 0
    for shape in [*SHAPES, (1, 1, 64, 64), (1, 1, 100, 3000), LONG]:
        rows, columns = shape[0] * shape[1] * -(-shape[2] // 64), -(-shape[3] // 64)
        for kept in range(0, rows * columns + 1, max(1, rows * columns // 50)):
            keep = (torch.arange(rows * columns) < kept).view(*shape[:2], -1, columns)
            if model.pays(keep, shape):
                chosen += 1
                assert exact(shape, keep) < exact(shape, None)
    assert chosen > 0


def test_the_crossover_is_where_paying_ends():
    model = fit(*WHERE, clock(), shapes=SHAPES, margin=0.1)
    density = model.crossover(LONG)
    assert 0 < density < 1
    rows, columns = 2 * 24 * 128, 128
    assert model.sparse_seconds(LONG, density * rows * columns) == pytest.approx(0.9 * model.dense_seconds(LONG))
    assert model.crossover((1, 1, 64, 64)) == 0.0  # the fixed cost alone is more than dense attention
    cheap = fit(*WHERE, clock(sparse=(1e-6, 1e-9, 1e-9)), shapes=SHAPES)
    assert cheap.crossover(LONG) == 1.0


def test_the_cheapest_pattern_is_named_and_dense_where_none_pays():
    model = fit(*WHERE, clock(), shapes=SHAPES)
    patterns = {str(density): random_keep(LONG, 64, density) for density in (0.02, 0.05, 0.9)}
    assert model.pays(patterns["0.05"], LONG) and model.cheapest(patterns, LONG) == "0.02"
    assert model.cheapest({"0.9": patterns["0.9"]}, LONG) is None


def test_a_larger_margin_is_more_careful():
    densities = [fit(*WHERE, clock(), shapes=SHAPES, margin=margin).crossover(LONG) for margin in (0.0, 0.2, 0.5)]
    assert densities[0] > densities[1] > densities[2]


def test_noise_makes_no_coefficient_negative():
    model = fit(*WHERE, clock(dense=(0.0, 2e-13), sparse=(0.0, 4e-8, 0.0), noise=0.1), shapes=SHAPES)
    assert min(*model.dense, *model.sparse) >= 0
    assert model.sparse[1] == pytest.approx(4e-8, rel=0.2)


def test_a_mask_shared_by_heads_and_samples_counts_for_all_of_them():
    shape = (2, 3, 128, 200)
    shared = torch.tensor([[True, False, True, True], [False, False, True, False]])[None, None]
    assert kept_blocks(shared, shape, 64) == kept_blocks(shared.expand(2, 3, 2, 4), shape, 64) == 24


def test_a_saved_model_is_found_again_for_its_own_device_only(tmp_path):
    model = fit(*WHERE, clock(), shapes=SHAPES)
    path = model.save(tmp_path / "costs")
    assert path.suffix == ".json"
    assert load(tmp_path / "costs", *WHERE) == model
    assert load(tmp_path / "costs", "cpu", torch.bfloat16, 64) is None
    assert load(tmp_path / "costs", *WHERE, block=128) is None


def test_a_fit_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least two lengths"):
        fit(*WHERE, clock(), shapes=[(1, 2, 256, 256), (2, 2, 256, 256)])
    with pytest.raises(ValueError, match=r"margin=1.5 must be in \[0, 1\)"):
        fit(*WHERE, clock(), shapes=SHAPES, margin=1.5)
    with pytest.raises(ValueError, match=r"keep \(1, 1, 2, 2\) does not fit .* expected \(1, 2, 4, 4\)"):
        fit(*WHERE, clock(), shapes=SHAPES).pays(torch.ones(1, 1, 2, 2, dtype=torch.bool), SHAPES[0])


def test_the_device_at_hand_can_be_fitted():
    shapes = [(1, 2, tokens, tokens) for tokens in (128, 256, 512)]
    with kernels.using(attention="torch"):
        model = fit(DEVICE, torch.float32, 64, timer(DEVICE, torch.float32, 64, repeats=2), shapes=shapes)
    assert isinstance(model, CostModel)
    assert max(model.dense) > 0 and max(model.sparse) > 0
    assert 0 <= model.crossover((1, 2, 4096, 4096)) <= 1

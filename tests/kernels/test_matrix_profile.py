"""The matrix profile: torch's tiles against all distances, and which neighbours count."""

import pytest
import torch
from compare import LOW_PRECISION, agrees, random
from torch.testing import assert_close

import kernels
from kernels.matrix_profile import matrix_profile

BACKENDS = ["reference", "torch"]
SHAPES = {  # B, series, T, l
    "one_window_each": (1, 2, 4, 4),
    "two_series": (2, 2, 9, 4),
    "many_short_series": (2, 40, 8, 4),
    "odd": (3, 5, 23, 7),
    "long_windows": (1, 3, 60, 31),
}


def windows(B, series, T, length, dtype=torch.float32):
    """All windows of random walks, and the series that they stem from."""
    (x,) = random((B, series, T))
    x = x.detach().cumsum(-1).to(dtype)
    groups = torch.arange(series, device=x.device).repeat_interleave(T - length + 1)
    return x.unfold(-1, length, 1).flatten(1, 2), groups


def found(backend, *args, **options):
    with kernels.using(matrix_profile=backend, strict=True):
        return matrix_profile(*args, **options)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_torch_equals_the_definition(shape):
    agrees("matrix_profile", "torch", lambda w, g: matrix_profile(w, g)[0], windows(*shape))


@pytest.mark.parametrize("dtype", [torch.float64, *LOW_PRECISION], ids=str)
def test_every_precision(dtype):
    agrees("matrix_profile", "torch", lambda w, g: matrix_profile(w, g)[0], windows(*SHAPES["odd"], dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_neighbour_that_is_named_is_at_the_distance_and_in_another_series(backend):
    w, groups = windows(*SHAPES["odd"])
    profile, index = found(backend, w, groups)
    z = (w - w.mean(-1, keepdim=True)) / (w.std(-1, correction=0, keepdim=True) + 1e-4)
    assert (groups[index] != groups).all()
    assert_close(profile, torch.stack([(a - a[j]).norm(dim=-1) for a, j in zip(z, index, strict=True)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pattern_planted_in_two_series_is_found_at_any_height_and_scale(backend):
    (x,) = random((2, 40), seed=3)
    x = x.detach()
    x[1, 25:33] = 3.0 * x[0, 5:13] - 7.0
    profile, index = found(backend, x.unfold(-1, 8, 1).flatten(0, 1)[None], torch.arange(2).repeat_interleave(33))
    assert sorted(profile[0].argsort()[:2].tolist()) == [5, 33 + 25]
    assert index[0, 5] == 33 + 25 and index[0, 33 + 25] == 5
    assert profile[0, 5] < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pattern_that_recurs_in_its_own_series_only_does_not_count(backend):
    (x,) = random((2, 40), seed=3)
    x = x.detach()
    x[0, 25:33] = x[0, 5:13]
    profile, index = found(backend, x.unfold(-1, 8, 1).flatten(0, 1)[None], torch.arange(2).repeat_interleave(33))
    assert profile[0, 5] > 0.5 and (index[0, :33] >= 33).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_may_come_in_any_order(backend):
    w, groups = windows(*SHAPES["odd"])
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    shuffled, index = found(backend, w[:, order], groups[order])
    profile, _ = found(backend, w, groups)
    assert_close(shuffled, profile[:, order])
    assert (groups[order][index] != groups[order]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_series_has_no_neighbours(backend):
    w, _ = windows(2, 1, 9, 4)
    profile, index = found(backend, w, torch.zeros(6, dtype=torch.int64))
    assert (profile == torch.inf).all() and (index == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flat_window_is_as_far_from_all_others_as_noise(backend):
    w, groups = windows(1, 2, 12, 6)
    w[0, 0] = 5.0
    assert found(backend, w, groups)[0][0, 0] == pytest.approx(6**0.5, rel=1e-3)


def test_many_small_tiles_give_the_same(monkeypatch):
    from kernels.matrix_profile import chunked

    monkeypatch.setitem(chunked.TILE, "cpu", 7)
    agrees("matrix_profile", "torch", lambda w, g: matrix_profile(w, g)[0], windows(*SHAPES["odd"]))


def test_gradients_stop_at_the_search():
    w, groups = windows(*SHAPES["two_series"])
    assert not matrix_profile(w.requires_grad_(), groups)[0].requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": torch.zeros(5, dtype=torch.int64)}, r"windows \(2, 12, 4\) and groups \(5,\) do not fit"),
        ({"groups": torch.zeros(12)}, "groups is torch.float32, it must hold integers"),
        ({"eps": 0.0}, "eps=0.0 must be positive"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    w, groups = windows(*SHAPES["two_series"])
    with pytest.raises(ValueError, match=message):
        matrix_profile(w, **{"groups": groups, **change})

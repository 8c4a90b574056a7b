"""Best matches of patterns in series: the equation by hand, and the fast backends against the reference."""

import pytest
import torch
from compare import random
from torch.testing import assert_close

import kernels
from kernels import subsequence_match

BACKENDS = ["torch", "direct"]


def drawn(B=5, L=30, N=3, S=25, longest=9, seed=0, level=0.0):
    """Series, patterns cut from them and disturbed, and spans of many lengths and windows."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(B, L, N, generator=rng) + level * torch.randn(B, 1, N, generator=rng)
    steps = torch.randint(1, longest + 1, (S,), generator=rng)
    variates, cases = torch.randint(N, (S,), generator=rng), torch.randint(B, (S,), generator=rng)
    starts = torch.randint(L - longest, (S,), generator=rng)
    values = torch.stack([x[b, s : s + longest, v] for b, s, v in zip(cases, starts, variates, strict=True)])
    values = values + 0.05 * torch.randn(values.shape, generator=rng)
    first = starts - torch.randint(6, (S,), generator=rng)
    return x, values, torch.stack((steps, variates, first, starts + 6), 1)


def assert_same(backend, x, values, spans, **options):
    """Distances of a backend equal the float64 reference's to 1e-4, and are those at the offsets it gives."""
    with kernels.using(subsequence_match=backend, strict=True):
        ours, offsets = subsequence_match(x, values, spans, **options)
    with kernels.using(subsequence_match="reference"):
        exact, _ = subsequence_match(x.double(), values.double(), spans, **options)
        options.pop("lengths", None)
        at = torch.full_like(exact, torch.inf)
        for b, s in (offsets >= 0).nonzero().tolist():
            only = spans[s : s + 1].clone()
            only[:, 2], only[:, 3] = offsets[b, s], offsets[b, s] + 1
            at[b, s] = subsequence_match(x[b : b + 1].double(), values[s : s + 1].double(), only, **options)[0]
    assert exact.isfinite().any()
    assert_close(ours.double(), exact, rtol=1e-4, atol=1e-9)
    assert_close(at, exact, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("complexity", [False, True], ids=["euclid", "complexity"])
def test_every_backend_equals_reference(complexity, backend):
    assert_same(backend, *drawn(), complexity=complexity)


def test_a_match_by_hand():
    x = torch.tensor([[0.0, 1, 3, 1, 0, 0, 1, 2]])[..., None]
    values, span = torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([[2, 0, 0, 8]])
    for backend in ("reference", *BACKENDS):
        with kernels.using(subsequence_match=backend):
            assert subsequence_match(x, values, span) == (torch.tensor([[0.0]]), torch.tensor([[6]]))
            before = subsequence_match(x, values, span, lengths=torch.tensor([7]))
            assert before == (torch.tensor([[0.5]]), torch.tensor([[1]]))  # (1, 3): the last two steps are beyond
            span[0, 2:] = torch.tensor([2, 5])
            distance, offset = subsequence_match(x, values, span, complexity=True)
            span = torch.tensor([[2, 0, 0, 8]])
    # offsets 2, 3, 4: (3, 1), (1, 0), (0, 0) at 5/2, 4/2, 5/2, of complexity 4, 1, 0 beside the pattern's 1
    assert offset.item() == 3
    assert_close(distance, torch.tensor([[2.0]]))


def test_complexity_makes_a_plain_pattern_far_from_a_restless_one():
    x, values = torch.tensor([[1.0, -1.0, 1.0]])[..., None], torch.zeros(1, 3)
    distance, _ = subsequence_match(x, values, torch.tensor([[3, 0, 0, 1]]), complexity=True)
    assert_close(distance, torch.tensor([[(8 + 1e-3) / 1e-3]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("complexity", [False, True], ids=["euclid", "complexity"])
def test_what_lies_beyond_a_series_is_not_matched(complexity, backend):
    x, values, spans = drawn()
    lengths = torch.tensor([30, 2, 11, 0, 24])
    for b, length in enumerate(lengths.tolist()):
        x[b, length:] = 0.0
    assert_same(backend, x, values, spans, lengths=lengths, complexity=complexity)
    with kernels.using(subsequence_match=backend):
        distances, offsets = subsequence_match(x, values, spans, lengths=lengths)
    assert distances[3].isinf().all() and (offsets[3] == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_outside_the_series_and_patterns_longer_than_it_have_no_match(backend):
    x, values, spans = drawn(L=12, longest=9)
    spans[3:6, 2:] = torch.tensor([[-9, 0], [12, 40], [5, 5]])
    assert_same(backend, x, values, spans)
    with kernels.using(subsequence_match=backend):
        distances, offsets = subsequence_match(x[:, :4], values, spans)
    assert distances[:, spans[:, 0] > 4].isinf().all() and (offsets[:, 3:6] == -1).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [1e2, 1e4])
def test_series_of_very_different_levels_do_not_cancel(level, backend):
    assert_same(backend, *drawn(level=level), complexity=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pattern_that_is_part_of_a_series_is_found_at_distance_zero(backend):
    x, values, spans = drawn()
    values[0, :5], spans[0] = x[2, 7:12, 1] + 0.0, torch.tensor([5, 1, 0, 30])
    with kernels.using(subsequence_match=backend):
        distances, offsets = subsequence_match(x, values, spans)
    assert distances[2, 0] == 0.0 and offsets[2, 0] == 7


def test_small_tiles_give_the_same(monkeypatch):
    from kernels.subsequence_match import tiled

    monkeypatch.setitem(tiled.PRODUCTS, "cpu", 40)
    monkeypatch.setitem(tiled.PATTERNS, "cpu", 2)
    assert_same("torch", *drawn(), complexity=True)


def test_many_patterns_are_left_to_the_tiles(monkeypatch):
    from kernels.subsequence_match import direct

    x, values, spans = drawn()
    assert direct.fits(x, values, spans) == ""
    monkeypatch.setattr(direct, "MOST", 100)
    assert direct.fits(x, values, spans) == "more than 100 differences"
    with kernels.using(subsequence_match="torch"):
        expected = subsequence_match(x, values, spans)
    assert_close(subsequence_match(x, values, spans), expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_row_holds_after_its_pattern_does_not_count(backend):
    x, values, spans = drawn()
    values[:, -1], spans[:, 0] = torch.nan, spans[:, 0].clamp(max=8)
    assert_same(backend, x, values, spans, complexity=True)


def test_low_precision_is_compared_in_single_precision():
    x, values, spans = drawn()
    ours, _ = subsequence_match(x.bfloat16(), values.bfloat16(), spans)
    exact, _ = subsequence_match(x.bfloat16().float(), values.bfloat16().float(), spans)
    assert ours.dtype == torch.float32
    assert_close(ours, exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_search_compiles_and_runs_on_the_meta_device(backend):
    x, values, spans = drawn()
    torch.compiler.reset()
    compiled = torch.compile(lambda *args: subsequence_match(*args), fullgraph=True, backend="aot_eager")
    with kernels.using(subsequence_match=backend):
        assert_close(compiled(x, values, spans), subsequence_match(x, values, spans))
        distances, offsets = subsequence_match(x.to("meta"), values.to("meta"), spans)
    assert distances.shape == offsets.shape == (5, 25) and distances.is_meta


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_does_not_round_the_search(backend):
    with kernels.using(subsequence_match=backend):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = subsequence_match(*drawn())
        assert_close(ours, subsequence_match(*drawn()), rtol=0, atol=0)


def test_gradients_stop_at_the_search():
    (x,) = random((1, 8, 1))
    distances, _ = subsequence_match(x, x[0, :3].mT, torch.tensor([[3, 0, 0, 5]]))
    assert not distances.requires_grad


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_patterns_that_cannot_be_are_named(backend):
    x, values, _ = drawn()
    with kernels.using(subsequence_match=backend):
        with pytest.raises(ValueError, match=r"pattern 0 has length 10 .* expected 1 to 9"):
            subsequence_match(x, values, torch.tensor([[10, 0, 0, 1]]).expand(25, 4))
        with pytest.raises(ValueError, match=r"pattern 0 has length 1 and variate 3: .* from 0 to 2"):
            subsequence_match(x, values, torch.tensor([[1, 3, 0, 1]]).expand(25, 4))


def test_arguments_that_do_not_fit_are_named():
    x, values, spans = drawn()
    with pytest.raises(ValueError, match=r"spans \(24, 4\) do not fit"):
        subsequence_match(x, values, spans[1:])
    with pytest.raises(ValueError, match="must be integers"):
        subsequence_match(x, values, spans.float())
    with pytest.raises(ValueError, match=r"values of torch.float64 of x's torch.float32"):
        subsequence_match(x, values.double(), spans)
    with pytest.raises(ValueError, match=r"lengths \(4,\) .* each of the 5 series"):
        subsequence_match(x, values, spans, lengths=torch.ones(4, dtype=torch.int64))

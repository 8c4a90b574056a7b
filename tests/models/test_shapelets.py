"""Shapelet discovery: important points and gains against brute force, selection, what planted patterns give."""

import logging
import math

import pytest
import torch
from torch.testing import assert_close

from models.shapelets import candidates, discover, information_gain, match_spans, score

OPTIONS = {"source": "discovered", "window": 5, "per_class": 2, "pips": 0.2, "ig_splits": "all"}
OPTIONS |= {"candidate_cases": None, "seed": 0}


def planted(cases=12, steps=30, seed=0):
    """Noise of two variates; in class 1 the second has a bump near step 12: x (M, L, 2), lengths, labels."""
    rng = torch.Generator().manual_seed(seed)
    x, labels = 0.1 * torch.randn(cases, steps, 2, generator=rng), torch.arange(cases) % 2
    for case in range(1, cases, 2):
        first = 10 + int(torch.randint(4, (1,), generator=rng))
        x[case, first : first + 6, 1] += torch.tensor([0.5, 1.5, 3.0, 3.0, 1.5, 0.5])
    return x, torch.full((cases,), steps), labels


def points_by_hand(y, pips):
    """Candidates (start, end) of one series, step by step as the paper has it."""
    n, chosen, found = len(y), [0, len(y) - 1], set()
    unit = math.sqrt((n * n - 1) / 12)
    for _ in range(max(5, int(pips * n)) - 2):
        best, farthest = None, -1.0
        for t in range(n):
            if t in chosen:
                continue
            a, b = max(p for p in chosen if p < t), min(p for p in chosen if p > t)
            run, rise = (b - a) / unit, y[b] - y[a]
            distance = abs(rise * (t - a) / unit - run * (y[t] - y[a])) / math.hypot(run, rise)
            if distance > farthest:
                best, farthest = t, distance
        if best is None:
            break
        chosen = sorted([*chosen, best])
        i = chosen.index(best)
        found |= {(chosen[i - z], chosen[i - z + 2]) for z in range(3) if i - z >= 0 and i - z + 2 < len(chosen)}
    return sorted(span for span in found if span[1] - span[0] >= 3)


def entropy(yes, n):
    shares = [yes / n, 1 - yes / n] if n else []
    return -sum(p * math.log2(p) for p in shares if p)


def brute_force(distances, positives, thresholds):
    """The best gain of the splits `distance <= threshold`."""
    M, P = len(distances), sum(positives)
    best = 0.0
    for t in thresholds:
        near = [yes for d, yes in zip(distances, positives, strict=True) if d <= t]
        k, p = len(near), sum(near)
        gain = entropy(P, M) - k / M * entropy(p, k) - (M - k) / M * entropy(P - p, M - k)
        best = max(best, gain)
    return best


def test_a_distance_that_parts_the_classes_tells_the_whole_entropy():
    distances = torch.tensor([[0.1, 0.2, 3.0, 2.0], [0.1, 3.0, 0.2, 2.0]])
    gains = information_gain(distances, torch.tensor([True, True, False, False]))
    assert_close(gains, torch.tensor([1.0, entropy(1, 2) - 0.75 * entropy(1, 3)]))


@pytest.mark.parametrize("splits", ["all", "quintiles"])
def test_gains_equal_brute_force_with_ties_and_series_without_a_match(splits):
    rng = torch.Generator().manual_seed(0)
    distances = torch.randint(9, (20, 17), generator=rng).float()
    distances[distances == 8] = torch.inf
    positives = torch.rand(20, 17, generator=rng) < 0.4
    for d, yes, gain in zip(distances, positives, information_gain(distances, positives, splits), strict=True):
        thresholds = d.tolist()
        if splits == "quintiles":
            of_class = d[yes].sort().values
            thresholds = [of_class[math.ceil(len(of_class) * q / 5) - 1].item() for q in range(1, 6)]
        assert gain.item() == pytest.approx(brute_force(d.tolist(), yes.tolist(), thresholds), abs=1e-5)


def test_equal_distances_tell_nothing():
    assert information_gain(torch.full((2, 6), 3.0), torch.arange(6) < 2).tolist() == [0.0, 0.0]
    assert information_gain(torch.rand(1, 6), torch.ones(6, dtype=torch.bool)).tolist() == [0.0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="ig_splits='best' is unknown: choose from all, quintiles"):
        information_gain(torch.rand(1, 6), torch.arange(6) < 2, "best")
    with pytest.raises(ValueError, match=r"positives \(5,\) of torch.bool do not fit"):
        information_gain(torch.rand(1, 6), torch.arange(5) < 2)


@pytest.mark.parametrize("pips", [0.2, 0.5])
def test_candidates_are_those_of_the_paper_for_every_series_of_its_own_length(pips):
    rng = torch.Generator().manual_seed(0)
    x, lengths = torch.randn(4, 40, 2, generator=rng, dtype=torch.float64), torch.tensor([40, 23, 6, 3])
    for case, length in enumerate(lengths.tolist()):
        x[case, length:] = 0.0
    by_hand = [
        [case, variate, *span]
        for case in range(4)
        for variate in range(2)
        for span in points_by_hand(x[case, : lengths[case], variate].tolist(), pips)
    ]
    assert candidates(x, lengths, pips).tolist() == by_hand
    assert {row[0] for row in by_hand} == {0, 1, 2}


def test_series_of_one_or_two_steps_or_none_have_no_candidates():
    assert len(candidates(torch.randn(3, 9, 1), torch.tensor([0, 1, 2]), 0.2)) == 0


def test_a_match_lies_within_the_window_around_the_shapelet():
    spans = torch.tensor([[0, 1, 4, 9], [3, 0, 20, 28]])
    assert match_spans(spans, 6, 30).tolist() == [[5, 1, 0, 11], [8, 0, 14, 23]]


def test_scores_are_gains_of_the_least_distance_within_the_window():
    x, lengths, labels = planted()
    spans = candidates(x, lengths, 0.2)[::7]
    gains = score(x, lengths, labels, spans, 4)
    for (case, variate, start, end), gain in zip(spans.tolist(), gains, strict=True):
        pattern, near = x[case, start:end, variate], []
        for other in x[:, max(0, start - 4) : end + 4, variate]:
            windows = other.unfold(0, end - start, 1)
            c = [1e-3 + y.diff(dim=-1).square().sum(-1) for y in (windows, pattern)]
            near.append(((windows - pattern).square().sum(-1) * torch.maximum(c[0] / c[1], c[1] / c[0])).amin())
        expected = information_gain(torch.stack(near)[None], labels == labels[case])
        assert_close(gain, expected[0], rtol=0, atol=1e-6)


def test_a_planted_pattern_is_found_in_its_variate_and_place():
    best = discover(*planted(), **OPTIONS)
    assert len(best) == 4 and [s.gain for s in best] == sorted((s.gain for s in best), reverse=True)
    assert best[0].gain == pytest.approx(1.0) and best[0].variate == 1
    assert best[0].start < 18 and best[0].end > 10
    assert all(s.label == s.case % 2 for s in best)


def test_chosen_shapelets_of_a_class_do_not_overlap_while_others_are_left():
    x, lengths, labels = planted(steps=60)
    chosen = discover(x, lengths, labels, **OPTIONS | {"per_class": 6})
    for label in (0, 1):
        own = [s for s in chosen if s.label == label]
        assert len(own) == 6
        for one in own:
            others = [s for s in own if s is not one and s.variate == one.variate]
            assert all(s.end <= one.start or s.start >= one.end for s in others)


def test_more_shapelets_than_candidates_take_all_and_say_how_many(caplog):
    x, lengths, labels = (part[:4] for part in planted())
    x, lengths = x[:, 10:18], lengths - 22
    count = len(candidates(x, lengths, 0.2))
    with caplog.at_level(logging.WARNING, "models.shapelets"):
        chosen = discover(x, lengths, labels, **OPTIONS | {"per_class": 100})
    assert len(chosen) == len(set(chosen)) == count
    assert "class 0 has" in caplog.text and "candidates for 100 shapelets: taking them all" in caplog.text


def test_candidates_of_a_class_come_from_as_many_series_as_asked_drawn_by_the_seed():
    x, lengths, labels = planted(cases=20)
    drawn = [
        {s.case for s in discover(x, lengths, labels, **OPTIONS | {"per_class": 500, "candidate_cases": 3, "seed": n})}
        for n in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(case % 2 for case in drawn[0]) == [0, 0, 0, 1, 1, 1]


def test_random_shapelets_are_spans_of_series_of_their_class_and_other_with_another_seed():
    x, lengths, labels = planted()
    one, again, other = (discover(x, lengths, labels, **OPTIONS | {"source": "random", "seed": n}) for n in (0, 0, 1))
    assert one == again != other
    assert sorted(s.label for s in one) == [0, 0, 1, 1]
    assert all(s.label == s.case % 2 and 0 <= s.start < s.end <= 30 for s in one)


def test_discovery_leaves_the_global_generator_alone_and_does_not_depend_on_memory(monkeypatch):
    before = torch.get_rng_state()
    whole = discover(*planted(), **OPTIONS)
    assert torch.get_rng_state().equal(before)
    monkeypatch.setattr("models.shapelets.SCORES", 100)
    assert discover(*planted(), **OPTIONS) == whole


def test_a_class_of_one_series_is_refused_by_name():
    x, lengths, _ = planted(cases=4)
    with pytest.raises(ValueError, match=r"at least two training series of a class: class 1 has fewer"):
        discover(x, lengths, torch.tensor([0, 0, 1, 0]), **OPTIONS)


def test_a_value_that_is_no_number_is_refused_with_its_place_but_not_after_the_end():
    x, lengths, labels = planted(cases=4)
    x[2, 20, 1], lengths[2] = torch.nan, 20
    discover(x.nan_to_num(0.0), lengths, labels, **OPTIONS)
    lengths[2] = 30
    with pytest.raises(ValueError, match=r"1 values that are no numbers, the first in case 2, variate 1, step 20"):
        discover(x, lengths, labels, **OPTIONS)


def test_series_too_short_for_a_candidate_are_refused():
    with pytest.raises(ValueError, match=r"no candidate of 3 steps: the longest has 3"):
        discover(torch.randn(4, 5, 1), torch.full((4,), 3), torch.arange(4) % 2, **OPTIONS)

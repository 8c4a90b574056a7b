"""Shapelet discovery: information gain by hand and against brute force."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.shapelets import information_gain


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

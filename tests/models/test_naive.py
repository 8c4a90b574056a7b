"""Baselines without parameters."""

import math

import torch

from models.naive import Interpolation, TrainMean

HOLE = math.nan


def filled(*values):
    return Interpolation()(torch.tensor(values)[None, :, None]).flatten().tolist()


def test_holes_lie_on_the_line_between_their_seen_neighbours():
    assert filled(0.0, HOLE, HOLE, 6.0, HOLE, 4.0) == [0, 2, 4, 6, 5, 4]


def test_ends_without_a_neighbour_hold_the_nearest_value():
    assert filled(HOLE, 3.0, HOLE, 5.0, HOLE, HOLE) == [3, 3, 4, 5, 5, 5]


def test_a_series_never_seen_becomes_the_mean_of_the_training_rows():
    assert filled(HOLE, HOLE, HOLE) == [0, 0, 0]


def test_every_series_of_every_window_is_filled_by_itself():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 9, 3, generator=generator)
    x[torch.rand(4, 9, 3, generator=generator) < 0.4] = HOLE
    whole = Interpolation()(x)
    assert whole.isfinite().all() and torch.equal(whole[~x.isnan()], x[~x.isnan()])
    torch.testing.assert_close(Interpolation()(x[1:2, :, 2:]), whole[1:2, :, 2:])


def test_the_training_mean_is_zero_whatever_the_window():
    assert torch.equal(TrainMean(horizon=5)(torch.full((2, 3, 4), HOLE)), torch.zeros(2, 5, 4))

"""Metrics against small cases worked out by hand, and the lesson: a random score, point-adjusted."""

import builtins
import importlib.util

import numpy as np
import pytest
import torch

from tasks.ts_anomaly import metrics
from tasks.ts_anomaly.floors import PCAReconstruction, RandomScore
from tasks.ts_anomaly.scores import StepScores, check_ratio, threshold_at

NO_BORDERS = np.array([0])


def bits(text):
    return np.array([c == "1" for c in text])


def test_runs_end_at_borders():
    assert metrics.runs(bits("0110111")) == [(1, 3), (4, 7)]
    assert metrics.runs(bits("0110111"), np.array([0, 2, 4])) == [(1, 2), (2, 3), (4, 7)]
    assert metrics.runs(bits("000")) == []


def test_ranks_keep_order_and_ties():
    assert metrics.ranks(torch.tensor([30.0, -2.0, 30.0, 1e9])).tolist() == [0.5, 0.0, 0.5, 1.0]


def test_an_event_counts_once_however_many_of_its_steps_are_flagged():
    labels, flags = bits("0111100011000"), bits("0101000000011")
    assert metrics.event_f1(flags, labels, NO_BORDERS) == 2 * 1 / (2 * 1 + 1 + 1)


def test_point_adjustment_counts_every_step_of_a_touched_event():
    labels, flags = bits("0111100011000"), bits("0101000000011")
    assert metrics.step_f1(flags, labels) == 2 * 2 / (2 * 2 + 4 + 2)
    assert metrics.point_adjusted_f1(flags, labels, NO_BORDERS) == 2 * 4 / (2 * 4 + 2 + 2)


def test_events_of_two_channels_that_touch_are_two():
    labels, flags = bits("0011110"), bits("0010000")
    assert metrics.event_f1(flags, labels, NO_BORDERS) == 1
    assert metrics.event_f1(flags, labels, np.array([0, 4])) == 2 / 3


def test_a_perfect_score_gets_one_and_scores_outside_zero_to_one_are_no_logits():
    labels = torch.tensor([False] * 50 + [True] * 10)
    scores = torch.arange(60.0) * 1e6
    found = metrics.measure(scores, labels, threshold=49.5e6, borders=NO_BORDERS, buffer=4)
    for name in ("auc_pr", "auc_roc", "best_f1", "f1", "event_f1", "point_adjusted_f1", "precision", "recall"):
        assert found[name] == pytest.approx(1), name


def test_areas_agree_with_their_definitions_on_a_small_case():
    labels, scores = torch.tensor([0, 1, 0, 1, 1]).bool(), torch.tensor([0.1, 0.9, 0.5, 0.4, 0.8])
    found = metrics.measure(scores, labels, 0.45, NO_BORDERS, buffer=2)
    assert found["auc_roc"] == pytest.approx(5 / 6)  # of 6 pairs only (0.4, 0.5) is in the wrong order
    assert found["auc_pr"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["best_f1"] == pytest.approx(6 / 7)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_a_random_score_is_near_the_base_rate_but_high_after_point_adjustment():
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(4000, dtype=torch.bool)
    labels[500:700] = labels[2000:2400] = True
    scores = torch.rand(4000, generator=generator)
    found = metrics.measure(scores, labels, 0.98, NO_BORDERS, buffer=10)
    assert found["auc_pr"] < 0.2 and found["f1"] < 0.1 and found["point_adjusted_f1"] > 0.8


def test_range_based_metrics_and_volumes_are_those_of_aeon():
    aeon = pytest.importorskip("aeon.benchmarking.metrics.anomaly_detection")
    labels, flags = bits("0111100011000"), bits("0101000000011")
    scores = np.linspace(0, 1, 13)[::-1].copy()
    found = metrics.by_aeon(scores, flags, labels.astype(int), buffer=3)
    # two runs of one step inside an event of four: overlap 2/4, halved for being in two pieces; the other event 0
    assert found["range_recall"] == pytest.approx((0.5 * 0.5 + 0) / 2)
    assert found["range_precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["vus_pr"] == pytest.approx(aeon.range_pr_vus_score(labels.astype(int), scores, max_buffer_size=3))
    assert found["vus_roc"] == pytest.approx(aeon.range_roc_vus_score(labels.astype(int), scores, max_buffer_size=3))


def test_without_aeon_its_metrics_are_left_out_and_the_install_command_is_named(monkeypatch, caplog):
    def absent(name, *rest, **kwargs):
        if name.startswith("aeon"):
            raise ImportError(name)
        return real_import(name, *rest, **kwargs)

    real_import = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None if name == "aeon" else importlib.util.find_spec(name))
    found = metrics.measure(torch.rand(20), torch.arange(20) > 15, 0.5, NO_BORDERS, 2)
    metrics.say_what_is_left_out()
    assert "auc_pr" in found and not any(name.startswith(("range", "vus")) for name in found)
    assert "pip install aeon" in caplog.text


def test_one_score_per_step_from_the_first_window_that_covers_it():
    scores = StepScores(6)
    squared = torch.stack([torch.full((4, 2), 1.0), torch.full((4, 2), 9.0)])
    squared[0, 2, 1] = 5.0
    scores.update(squared, torch.tensor([0, 1]), torch.tensor([0, 3]))
    score, worst, seen = scores.compute()
    assert score.tolist() == [1, 1, 3, 1, 9, 0] and worst[2] == 1
    assert seen.tolist() == [True] * 5 + [False]


def test_the_threshold_has_ratio_percent_of_the_scores_above_it():
    scores = torch.arange(1000.0)
    assert (scores > threshold_at(5.0, scores)).sum() == 50


@pytest.mark.parametrize("ratio", [0, -1, 50.5, True, "1"])
def test_a_ratio_that_is_no_percentage_up_to_fifty_is_refused(ratio):
    with pytest.raises(ValueError, match=r"task\.ratio=.*above 0 and at most 50"):
        check_ratio(ratio)


def test_pca_scores_what_leaves_the_plane_of_the_rows_it_was_fitted_on():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(200, 2, generator=generator)
    rows = torch.cat([plane, plane.sum(1, keepdim=True)], 1)
    floor = PCAReconstruction(share=0.99)
    floor.fit(rows)
    off = rows[:3] + torch.tensor([[0, 0, 0], [1, 1, -1], [5, 0, 5]])
    score = floor.score(off)
    assert score[0] < 1e-9 and score[2] < 1e-9 and score[1] == pytest.approx(1.0, rel=1e-5)


def test_pca_of_a_single_variate_is_the_squared_distance_from_the_mean():
    floor = PCAReconstruction()
    floor.fit(torch.tensor([[1.0], [3.0]]))
    assert floor.score(torch.tensor([[2.0], [5.0]])).tolist() == [0, 9]


def test_random_scores_repeat_with_their_seed():
    draws = []
    for seed in (0, 0, 1):
        floor = RandomScore(seed)
        floor.fit(torch.zeros(1, 1))
        draws.append(floor.score(torch.zeros(5, 1)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("share", [0, 1, 2, True])
def test_a_share_of_variance_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"share=.*\(0, 1\)"):
        PCAReconstruction(share)

"""The task as a user meets it: a run on a small file, its results, figures and table, and scores of a new file."""

import layouts
import numpy as np
import pandas as pd
import pytest
import torch
from command import call

from models.naive import LastValue
from tasks.ts_anomaly.task import AnomalyDetection

ROWS, ANOMALOUS = 240, (170, 171, 172, 200)
SMALL = ("task=ts_anomaly", "data=anomaly_csv", "data.lookback=10", "data.batch_size=16", "trainer=cpu", "logger=none")
ENCODER = ("model.d_model=8", "model.heads=2", "model.d_ff=8", "model.depth=1", "trainer.max_steps=3")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return layouts.write_csv(tmp_path_factory.mktemp("own") / "own.csv", ROWS, anomalous=ANOMALOUS)


@pytest.fixture(scope="module")
def detected(tmp_path_factory, file):
    """A finished run; its three columns are two of noise and a constant one."""
    outcome = call(tmp_path_factory.mktemp("detected"), *SMALL, *ENCODER, f"data.path={file}")
    assert outcome.code == 0, outcome.err
    return outcome


def test_all_measures_stand_beside_those_of_the_floors(detected):
    results = detected.results
    honest = {"auc_pr", "auc_roc", "best_f1", "f1", "precision", "recall", "event_f1", "anomalous", "flagged"}
    assert {f"test/{name}" for name in honest} <= set(results["metrics"])
    assert set(results["baselines"]) == {"pca", "random"}
    random = results["baselines"]["random"]["test/point_adjusted_f1"]
    assert results["metrics"]["test/random_point_adjusted_f1"] == pytest.approx(random)
    assert results["metrics"]["test/anomalous"] == pytest.approx(4 / 120)


def test_outliers_of_twenty_deviations_are_found(detected):
    metrics = detected.results["metrics"]
    assert metrics["test/auc_pr"] == pytest.approx(1) and metrics["test/recall"] == 1


def test_results_say_what_flatters_and_where_the_threshold_comes_from(detected):
    details = detected.results["details"]
    assert "oracle" in details["notes"]["test/best_f1"] and "inflated" in details["notes"]["test/point_adjusted_f1"]
    assert details["threshold_from"] == "99 % quantile of the train scores"
    assert details["test_scores_seen_by_threshold"] is False


def test_figures_are_drawn(detected):
    names = {path.name for path in (detected.dir / "figures").iterdir()}
    assert {"anomalies.png", "scores.png", "precision_recall.png", "loss.png"} <= names


def test_the_threshold_of_train_scores_is_the_same_whatever_the_test_scores(detected, tmp_path, file):
    table = pd.read_csv(file)
    table.loc[150:, ["a", "b"]] *= 100
    table.to_csv(tmp_path / "loud.csv", index=False)
    thresholds = {}
    for source in ("train", "train_and_test"):
        folder = tmp_path / source
        folder.mkdir()
        settings = (f"data.path={tmp_path / 'loud.csv'}", f"task.threshold_from={source}", "task=ts_anomaly")
        outcome = call(folder, "mode=test", f"ckpt={detected.dir / 'best.ckpt'}", "logger=none", *settings)
        assert outcome.code == 0, outcome.err
        thresholds[source] = outcome.results["details"]["threshold"]
        assert outcome.results["details"]["test_scores_seen_by_threshold"] == (source == "train_and_test")
    assert thresholds["train"] == pytest.approx(detected.results["details"]["threshold"])
    assert thresholds["train_and_test"] > 100 * thresholds["train"]


def test_a_new_file_gets_score_flag_and_shares_per_row(detected, tmp_path, file):
    new, target = tmp_path / "new.csv", tmp_path / "scores.csv"
    pd.read_csv(file).drop(columns="label").iloc[155:178].to_csv(new, index=False)
    outcome = call(tmp_path, "mode=predict", f"ckpt={detected.dir / 'best.ckpt'}", f"input={new}", f"output={target}")
    assert outcome.code == 0 and "23 rows scored" in outcome.out, outcome.err
    table = pd.read_csv(target)
    assert list(table) == ["date", "score", "flag", "a share", "b share", "flat share"]
    assert table.index[table["flag"] == 1].tolist()[:3] == [15, 16, 17] and (table["a share"][15:18] > 0.9).all()
    np.testing.assert_allclose(table.filter(like="share").sum(axis=1), 1, atol=1e-4)


def test_a_file_to_score_that_is_shorter_than_a_window_is_refused(detected, tmp_path, file):
    pd.read_csv(file).iloc[:9].to_csv(tmp_path / "short.csv", index=False)
    places = (f"input={tmp_path / 'short.csv'}", f"output={tmp_path / 'scores.csv'}")
    outcome = call(tmp_path, "mode=predict", f"ckpt={detected.dir / 'best.ckpt'}", *places)
    assert outcome.code == 2 and "9 rows, a window needs 10" in outcome.line


def test_forecast_scoring_needs_no_training_with_a_model_without_parameters(runner, file):
    outcome = runner(*SMALL, f"data.path={file}", "task.scoring=forecast", "model=last_value")
    assert outcome.code == 0, outcome.err
    assert outcome.results["metrics"]["test/auc_roc"] > 0.8  # the step after an outlier is badly forecast too
    assert outcome.results["details"]["steps_without_history"].startswith("0,")


@pytest.mark.parametrize(
    ("label", "anomalous", "said"), [(None, (), "has no labels"), ("label", (), "labelled normal")]
)
def test_without_labels_of_both_kinds_there_are_scores_and_no_f1(runner, tmp_path, label, anomalous, said):
    path = layouts.write_csv(tmp_path / "x.csv", 120, label, anomalous)
    outcome = runner(*SMALL, f"data.path={path}", "task.scoring=forecast", "model=last_value")
    assert outcome.code == 0 and said in outcome.err, outcome.err
    assert set(outcome.results["metrics"]) == {"test/flagged"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("task.ratio=60",), "task.ratio=60"),
        (("task.threshold_from=test",), "task.threshold_from='test': choose one of train, validation, train_and_test"),
        (("task.scoring=forecast",), "choose a forecaster"),
        (("data.lookback=100",), "no series is long enough for a window of 100 rows"),
    ],
)
def test_bad_settings_get_one_line(runner, file, settings, message):
    outcome = runner(*SMALL, *ENCODER, f"data.path={file}", *settings)
    assert outcome.code == 2 and message in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err


def test_the_data_of_another_task_is_refused(runner, data_args):
    outcome = runner("task=ts_anomaly", *data_args, "model=linear")
    assert outcome.code == 2 and "csv is data of task=ts_forecast, not of ts_anomaly" in outcome.line


def test_the_loss_of_a_reconstruction_is_its_mean_squared_error():
    task = AnomalyDetection(LastValue(horizon=3))
    x = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert task.training_step({"x": x, "y": x}, 0) == (9 + 4 + 0) / 3


def test_describe_needs_no_data(runner, tmp_path):
    outcome = runner("mode=describe", "preset=ts_survey/anomaly_msl", f"data.root={tmp_path}")
    assert outcome.code == 0 and "24,247" in outcome.out, outcome.err

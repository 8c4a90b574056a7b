"""mode=fit on a small series: what the run directory holds, and that its numbers are right."""

import csv

import matplotlib.image
import numpy as np
import pytest
from by_hand import Series, load_model, small_model
from omegaconf import OmegaConf
from small_series import COLUMNS, HORIZON

CONTRACT = "metrics published paper params flops seconds peak_memory_mb fingerprint versions status"


@pytest.fixture(scope="module")
def errors(fitted, series_csv) -> tuple[Series, np.ndarray, np.ndarray]:
    """The series, and forecasts and truths (W, H, N) of every test window, scaled, by hand."""
    series, model = Series(series_csv), load_model(fitted.dir / "best.ckpt")
    starts = series.windows(len(series.values) - series.test, len(series.values))
    truths = np.stack([series.scaled[start : start + HORIZON] for start in starts])
    return series, np.stack([series.forecast(model, start) for start in starts]), truths


def test_run_directory_holds_what_the_design_names(fitted):
    names = {path.name for path in fitted.dir.iterdir()}
    assert names == {"config.yaml", "results.json", "metrics.csv", "run.log", "figures", "best.ckpt", "last.ckpt"}


def test_results_hold_every_name_of_the_contract(fitted):
    results = fitted.results
    assert results.keys() >= set(CONTRACT.split())
    assert results["status"] == "done" and results["steps"] == 3
    assert results["paper"] is None and results["published"] is None
    assert fitted.dir.name == f"itransformer-{results['fingerprint']}"
    assert {"python", "torch", "lightning", "runner", "code"} <= results["versions"].keys()
    assert results["seconds"]["total"] > results["seconds"]["train"] > 0 and results["peak_memory_mb"] > 50


def test_parameters_in_the_results_are_those_of_the_model(fitted):
    count = sum(p.numel() for p in small_model().parameters())
    assert fitted.results["params"] == {"total": count, "trainable": count}


def test_recorded_config_is_resolved_and_complete(fitted):
    cfg = OmegaConf.load(fitted.dir / "config.yaml")
    assert (cfg.model.lookback, cfg.data.variates, cfg.data.marks, cfg.trainer.max_steps) == (24, 3, 4, 3)
    assert "${" not in (fitted.dir / "config.yaml").read_text()


def test_metrics_csv_has_the_curves(fitted):
    rows = list(csv.DictReader((fitted.dir / "metrics.csv").open()))
    assert {"step", "epoch", "lr", "train/loss", "val/mse", "val/mae"} == set(rows[0])
    assert [row["step"] for row in rows] == ["3", "3"]
    validated = [float(row["val/mse"]) for row in rows if row["val/mse"]]
    assert validated == [pytest.approx(fitted.results["metrics"]["val/mse"])]


def test_figures_are_images(fitted):
    assert set(fitted.results["figures"]) == {f"figures/{n}.png" for n in ("forecast", "attention", "loss")}
    for name in fitted.results["figures"]:
        image = matplotlib.image.imread(fitted.dir / name)
        assert min(image.shape[:2]) > 200 and image[..., :3].std() > 0.01


def test_run_log_and_closing_table_say_where_and_what(fitted):
    assert str(fitted.dir.relative_to(fitted.folder)) in (fitted.dir / "run.log").read_text()
    for word in (
        "test/mse",
        "test/mase",
        "last value",
        "seasonal naive",
        f"{fitted.results['metrics']['test/mse']:.4g}",
    ):
        assert word in fitted.out


def test_scaled_errors_equal_those_computed_by_hand(fitted, errors):
    _, forecast, truth = errors
    metrics = fitted.results["metrics"]
    assert metrics["test/mse"] == pytest.approx(((forecast - truth) ** 2).mean(), rel=1e-5)
    assert metrics["test/mae"] == pytest.approx(abs(forecast - truth).mean(), rel=1e-5)


def test_errors_in_original_units_equal_those_computed_by_hand(fitted, errors):
    series, forecast, truth = errors
    f, y = (v * series.std + series.mean for v in (forecast, truth))
    expected = {
        "test/mse_original": ((f - y) ** 2).mean(),
        "test/mae_original": abs(f - y).mean(),
        "test/smape": (2 * abs(f - y) / (abs(f) + abs(y))).mean(),
        "test/mase": (abs(f - y).mean((0, 1)) / series.naive).mean(),
    }
    metrics = fitted.results["metrics"]
    assert {k: metrics[k] for k in expected} == pytest.approx(expected, rel=1e-4)


def test_validation_error_equals_that_of_the_best_checkpoint(fitted, series_csv):
    series, model = Series(series_csv), load_model(fitted.dir / "best.ckpt")
    starts = series.windows(series.train, len(series.values) - series.test)
    errors = [series.forecast(model, s) - series.scaled[s : s + HORIZON] for s in starts]
    assert fitted.results["metrics"]["val/mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)


def test_details_are_per_step_and_per_variate(fitted, errors):
    _, forecast, truth = errors
    details = fitted.results["details"]
    assert details["variates"] == list(COLUMNS)
    squared = (forecast - truth) ** 2
    assert details["mse_per_step"] == pytest.approx(squared.mean((0, 2)), rel=1e-4)
    assert details["mse_per_variate"] == pytest.approx(squared.mean((0, 1)), rel=1e-4)
    assert details["mae_per_step"] == pytest.approx(abs(forecast - truth).mean((0, 2)), rel=1e-4)
    assert len(details["mae_per_variate"]) == len(COLUMNS)


def test_baselines_stand_beside_the_model(fitted, errors):
    series, _, truth = errors
    starts = series.windows(len(series.values) - series.test, len(series.values))
    last = np.stack([series.scaled[s - 1] for s in starts])[:, None]
    season = np.stack([series.scaled[s - 24 : s - 24 + HORIZON] for s in starts])
    baselines = fitted.results["baselines"]
    assert baselines["last_value"]["test/mse"] == pytest.approx(((last - truth) ** 2).mean(), rel=1e-5)
    assert baselines["seasonal_naive"]["test/mae"] == pytest.approx(abs(season - truth).mean(), rel=1e-5)
    assert baselines["last_value"].keys() == {k for k in fitted.results["metrics"] if k.startswith("test/")}


def test_a_model_without_parameters_runs_end_to_end(runner, data_args, fitted):
    outcome = runner(*data_args, "model=last_value")
    assert outcome.code == 0, outcome.err
    assert outcome.results["status"] == "done" and outcome.results["params"]["total"] == 0
    scores = {k: v for k, v in outcome.results["metrics"].items() if k.startswith("test/")}
    assert scores == pytest.approx(fitted.results["baselines"]["last_value"])

"""Holes in windows: what is hidden, what counts, what is refused, and a user's file filled."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from command import call
from small_series import COLUMNS, LOOKBACK, ROWS
from torch import nn

from models.itransformer import ITransformer
from models.naive import Interpolation, LastValue, TrainMean
from tasks.ts_forecast.data import ForecastData
from tasks.ts_forecast.marks import time_features
from tasks.ts_forecast.task import Forecast, hide

N = len(COLUMNS)


class Bias(nn.Module):
    """A model whose every output is its one weight; remembers its inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, marks=None, future_marks=None):
        self.seen = (x, marks, future_marks)
        return self.weight.expand_as(x)


class Around:
    """The one thing that validation asks a trainer for."""

    def __init__(self, datamodule):
        self.datamodule = datamodule


@pytest.fixture
def data(series_csv):
    return own(series_csv)


def own(path, **changes):
    settings = {
        "lookback": LOOKBACK,
        "horizon": LOOKBACK,
        "variates": N,
        "seed": 3,
        "split": [0.6, 0.2, 0.2],
        **changes,
    }
    module = ForecastData(name="csv", source={"format": "csv", "files": []}, path=str(path), **settings)
    module.setup()
    return module


def tasked(data, model=None, **settings):
    task = Forecast(model or Bias(), **{"imputation": 0.25, **settings})
    task._trainer = Around(data)
    return task


def test_the_model_sees_the_targets_with_zeros_in_the_holes_and_their_dates(data):
    task = tasked(data)
    batch = data.val[torch.arange(4)]
    asked = task.asked(batch)
    task(asked)
    x, marks, future_marks = task.model.seen
    hidden = asked["hidden"]
    assert torch.equal(x[~hidden], batch["y"][~hidden]) and not x[hidden].any()
    assert torch.equal(asked["y"], batch["y"])
    assert torch.equal(marks, batch["future_marks"]) and torch.equal(future_marks, batch["future_marks"])


def test_without_time_features_there_are_none(data):
    y = torch.randn(2, 4, 3)
    assert set(hide({"x": y, "y": y}, y > 0)) == {"x", "y", "hidden"}


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_the_stated_share_of_the_values_is_hidden(data, share):
    hidden = tasked(data, imputation=share).asked(data.test[torch.arange(len(data.test))])["hidden"]
    assert hidden.float().mean() == pytest.approx(share, abs=0.03)


def test_holes_of_a_window_depend_on_seed_and_window_alone(data, series_csv):
    task = tasked(data)
    together = task.asked(data.test[torch.arange(6)])["hidden"]
    torch.manual_seed(99)
    assert torch.equal(task.asked(data.test[torch.tensor([4, 1])])["hidden"], together[[4, 1]])
    assert not torch.equal(together[0], together[1])
    strided = own(series_csv, test_stride=2)
    assert torch.equal(tasked(strided).asked(strided.test[torch.tensor([2])])["hidden"], together[4:5])
    other = own(series_csv, seed=4)
    assert not torch.equal(tasked(other).asked(other.test[torch.arange(6)])["hidden"], together)


def test_training_hides_other_values_every_step_and_the_same_ones_after_the_same_seed(data):
    task, batch = tasked(data), data.train[torch.arange(4)]

    def holes():
        task.training_step(batch, 0)
        return task.model.seen[0] == 0

    torch.manual_seed(0)
    first, second = holes(), holes()
    torch.manual_seed(0)
    assert torch.equal(holes(), first) and not torch.equal(first, second)


@pytest.mark.parametrize(("name", "error"), [("mse", lambda e: e.square()), ("mae", lambda e: e.abs())])
def test_the_loss_is_the_error_of_the_hidden_values_alone(data, name, error):
    task, batch = tasked(data, loss=name), data.train[torch.arange(4)]
    loss = task.training_step(batch, 0)
    hidden = task.model.seen[0] == 0
    expected = error(0.5 - batch["y"][hidden]).mean()
    torch.testing.assert_close(loss.detach(), expected)


def test_a_window_without_a_hole_costs_nothing_and_has_a_gradient(data):
    task = tasked(data, imputation=1e-9)
    loss = task.training_step(data.train[torch.arange(1)], 0)
    loss.backward()
    assert loss == 0 and task.model.weight.grad == 0


def test_test_metrics_count_the_hidden_values_of_model_and_baselines_alone(data):
    task = tasked(data, baselines={"train_mean": TrainMean(LOOKBACK), "line": Interpolation()})
    task.setup("test")
    index = torch.arange(len(data.test))
    for part in index.split(5):
        task.test_step(data.test[part], 0)
    asked = task.asked(data.test[index])
    y, hidden = asked["y"], asked["hidden"]
    line = Interpolation()(y.masked_fill(hidden, math.nan))
    expected = {"model": 0.5 - y, "train_mean": y, "line": line - y}
    for name, errors in task.test_errors.items():
        assert float(errors.compute()["mse"]) == pytest.approx(float(expected[name][hidden].square().mean()), rel=1e-4)
    details = task.test_errors["line"].details()
    per_variate = [float((line - y)[..., n][hidden[..., n]].abs().mean()) for n in range(N)]
    assert details["mae_per_variate"] == pytest.approx(per_variate, rel=1e-4)


def test_baselines_that_fill_no_holes_are_left_out(caplog):
    with caplog.at_level("INFO"):
        task = Forecast(Bias(), imputation=0.5, baselines={"last": LastValue(4), "mean": TrainMean(4)})
    assert list(task.baselines) == ["mean"] and "baseline last is left out" in caplog.text
    assert list(Forecast(Bias(), baselines={"last": LastValue(4)}).baselines) == ["last"]


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match=r"task\.imputation=.*\(0, 1\), or null to forecast"):
        Forecast(Bias(), imputation=share)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 12}, r"data\.horizon=12 must be data\.lookback=24: set data\.horizon=24"),
        ({"input_noise": 0.1}, r"neither data\.input_noise nor data\.input_shuffle"),
        ({"input_shuffle": "full"}, r"neither data\.input_noise nor data\.input_shuffle"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_training(series_csv, changes, message):
    data = own(series_csv, **changes)
    with pytest.raises(ValueError, match=message):
        tasked(data).prepare(data)
    Forecast(Bias()).prepare(data)


@pytest.fixture(scope="session")
def filling(tmp_path_factory, tiny):
    """A finished run of three steps that fills holes."""
    same = [a for a in tiny if not a.startswith("data.horizon")]
    outcome = call(tmp_path_factory.mktemp("filling"), "task=ts_imputation", *same, f"data.horizon={LOOKBACK}")
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_run_scores_and_draws_holes_beside_its_baselines(filling):
    results = filling.results
    assert set(results["baselines"]) == {"train_mean", "interpolation"}
    assert results["metrics"]["test/mse"] > 0
    assert "figures/imputation.png" in results["figures"] and (filling.dir / "figures/imputation.png").is_file()


def test_another_horizon_is_told_in_one_line_and_leaves_nothing(runner, tiny, tmp_path):
    outcome = runner("task=ts_imputation", *tiny)
    assert outcome.code == 2 and "set data.horizon=24" in outcome.line
    assert not list(tmp_path.rglob("results.json"))


@pytest.fixture(scope="session")
def holes(series_csv, tmp_path_factory):
    """The series with holes: single ones, the last row, and one column empty for more than a window."""
    table = pd.read_csv(series_csv)
    table.loc[[3, 100, ROWS - 1], "load"] = np.nan
    table.loc[ROWS - 1, "heat"] = np.nan
    table.loc[40:100, "wind"] = np.nan
    path = tmp_path_factory.mktemp("holes") / "holes.csv"
    table.to_csv(path, index=False)
    return path


def fill(filling, source, target, *more):
    ends = (f"ckpt={filling.dir / 'best.ckpt'}", f"input={source}", f"output={target}")
    return call(target.parent, "mode=predict", *ends, *more)


@pytest.fixture(scope="session")
def filled(filling, holes):
    """What became of that file, and what the command said."""
    outcome = fill(filling, holes, holes.with_name("whole.csv"))
    assert outcome.code == 0, outcome.err
    return pd.read_csv(holes.with_name("whole.csv")), outcome


def test_a_file_comes_back_complete_with_its_other_values_as_they_were(filled, holes):
    before, (after, outcome) = pd.read_csv(holes), filled
    assert f"65 of {ROWS * N} values filled in" in outcome.out
    assert list(after["date"]) == list(before["date"]) and list(after) == ["date", *COLUMNS]
    kept = before[list(COLUMNS)].notna().to_numpy()
    found, given = (table[list(COLUMNS)].to_numpy() for table in (after, before))
    assert np.isfinite(found).all() and (found[kept] == given[kept]).all()


def test_a_column_without_any_value_in_a_window_is_named(filled):
    said = filled[1].out + filled[1].err
    assert "no value from line 50 (2020-01-03 00:00:00) to line 73 (2020-01-03 23:00:00) in column 'wind'" in said


def test_the_last_window_is_filled_by_the_model_in_the_files_units(filling, filled, holes):
    checkpoint = torch.load(filling.dir / "best.ckpt", weights_only=True)
    model = ITransformer(LOOKBACK, LOOKBACK, d_model=16, depth=1, heads=2, d_ff=16).eval()
    model.load_state_dict({key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items()})
    mean, std = (checkpoint["scale"][key].numpy() for key in ("mean", "std"))
    table = pd.read_csv(holes, parse_dates=["date"]).tail(LOOKBACK)
    x = np.nan_to_num((table[list(COLUMNS)].to_numpy() - mean) / std)
    marks = torch.from_numpy(time_features(pd.DatetimeIndex(table["date"])))[None]
    expected = model(torch.from_numpy(x).float()[None], marks)[0, -1].detach().numpy() * std + mean
    found = filled[0][list(COLUMNS)].to_numpy()[-1]
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-4)


def test_rows_that_are_absent_are_holes_where_the_step_is_known(filling, holes, tmp_path):
    pd.read_csv(holes).drop(index=range(150, 155)).to_csv(tmp_path / "gap.csv", index=False)
    outcome = fill(filling, tmp_path / "gap.csv", tmp_path / "whole.csv", "data.frequency=h")
    assert outcome.code == 0 and f"{65 + 5 * N} of {ROWS * N}" in outcome.out, outcome.err
    assert len(pd.read_csv(tmp_path / "whole.csv")) == ROWS


def test_a_file_shorter_than_a_window_is_refused(filling, series_csv, tmp_path):
    pd.read_csv(series_csv).head(10).to_csv(tmp_path / "short.csv", index=False)
    outcome = fill(filling, tmp_path / "short.csv", tmp_path / "whole.csv")
    assert outcome.code == 2 and "10 rows, the model looks back 24" in outcome.line

"""mode=predict: the steps that follow a user's file."""

import numpy as np
import pandas as pd
import pytest
from by_hand import Series, load_model
from small_series import COLUMNS, HORIZON, LOOKBACK, ROWS, write_series


@pytest.fixture
def predict(runner, fitted):
    """`predict(input, output, ...)` with the fitted checkpoint."""
    return lambda source, target, *arguments: runner(
        "mode=predict", f"ckpt={fitted.dir / 'best.ckpt'}", f"input={source}", f"output={target}", *arguments
    )


def test_forecast_has_the_horizons_rows_and_continuing_dates(predict, tmp_path, series_csv):
    outcome = predict(series_csv, tmp_path / "forecast.csv")
    assert outcome.code == 0, outcome.err
    table = pd.read_csv(tmp_path / "forecast.csv", parse_dates=["date"])
    assert list(table) == ["date", *COLUMNS] and len(table) == HORIZON
    last = pd.read_csv(series_csv, parse_dates=["date"])["date"].iloc[-1]
    assert list(table["date"]) == list(pd.date_range(last, periods=HORIZON + 1, freq="h")[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["forecast.csv"]


def test_forecast_equals_the_models_output_in_the_inputs_units(predict, tmp_path, series_csv, fitted):
    predict(series_csv, tmp_path / "forecast.csv")
    series = Series(series_csv)
    dates = pd.date_range(series.dates[0], periods=ROWS + HORIZON, freq="h")
    expected = series.forecast(load_model(fitted.dir / "best.ckpt"), ROWS, dates) * series.std + series.mean
    found = pd.read_csv(tmp_path / "forecast.csv")[list(COLUMNS)].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_forecast_reads_only_the_trained_columns_in_any_order(predict, tmp_path, series_csv):
    table = pd.read_csv(series_csv)
    table.assign(extra=1.0)[["extra", *reversed(COLUMNS), "date"]].to_csv(tmp_path / "other.csv", index=False)
    predict(series_csv, tmp_path / "a.csv")
    predict(tmp_path / "other.csv", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_forecast_from_exactly_one_lookback_of_rows_is_the_same(predict, tmp_path, series_csv):
    write_series(tmp_path / "tail.csv", rows=LOOKBACK, first=ROWS - LOOKBACK)
    predict(series_csv, tmp_path / "a.csv")
    predict(tmp_path / "tail.csv", tmp_path / "b.csv")
    a, b = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv"))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)


def without(column):
    return lambda table: table.drop(columns=[column])


def with_text(table):
    return table.astype({"heat": object}).assign(heat=lambda t: t["heat"].where(t.index != 200, "cold"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("heat"), ["heat"]),
        (without("date"), ["date"]),
        (lambda table: table.head(LOOKBACK - 1), [f"{LOOKBACK - 1} rows", str(LOOKBACK)]),
        (with_text, ["heat", "cold", "line 202"]),
        (lambda table: table.iloc[::-1], ["order"]),
        (lambda table: table.head(0), ["no rows"]),
        (lambda table: table.assign(wind=np.nan), ["wind"]),
    ],
    ids=["missing column", "no dates", "too short", "text", "unsorted", "empty", "all missing"],
)
def test_a_wrong_input_file_is_told_in_one_line(predict, tmp_path, series_csv, change, words):
    source, target = tmp_path / "input.csv", tmp_path / "forecast.csv"
    change(pd.read_csv(series_csv)).to_csv(source, index=False)
    outcome = predict(source, target)
    assert outcome.code == 2
    assert str(source) in outcome.line
    assert all(word in outcome.line for word in words), outcome.line
    assert [path.name for path in tmp_path.iterdir()] == ["input.csv"]


def test_a_missing_input_or_output_folder_is_told_in_one_line(predict, tmp_path, series_csv):
    outcome = predict(tmp_path / "nothing.csv", tmp_path / "forecast.csv")
    assert outcome.code == 2 and "nothing.csv" in outcome.line and "no such file" in outcome.line
    outcome = predict(series_csv, tmp_path / "nowhere" / "forecast.csv")
    assert outcome.code == 2 and "nowhere" in outcome.line and "does not exist" in outcome.line
    assert list(tmp_path.iterdir()) == []

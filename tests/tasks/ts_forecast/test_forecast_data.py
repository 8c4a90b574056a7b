from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tasks import sources
from tasks.ts_forecast.data import ForecastData, split_rows
from tasks.ts_forecast.marks import following, time_features

ROOT = Path(__file__).parents[3]
NAMES = sorted(p.stem for p in (ROOT / "conf/data").glob("*.yaml") if "- _series" in p.read_text())
SETS = [name for name in NAMES if name != "csv"]


def config(name, *overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(overrides=[f"+data={name}", "+seed=0", *overrides]).data


def real(name, *overrides):
    data = config(name, "data.download=false", *overrides)
    if sources.find(data) is None:
        pytest.skip(f"{name} is not on this machine: set RUNNER_DATA to the folder that holds {data.source.files[0]}")
    module = instantiate(data)
    module.prepare_data()
    module.setup("fit")
    return module


@pytest.fixture
def file(tmp_path):
    """100 hours of two columns: a counts the rows, b is 5 times the row's parity; c is constant."""
    path = tmp_path / "own.csv"
    hours = pd.date_range("2021-03-01", periods=100, freq="h")
    row = np.arange(100)
    pd.DataFrame({"date": hours, "a": row, "b": 5 * (row % 2), "c": 7}).to_csv(path, index=False)
    return path


def own(file, **changes):
    arguments = {"lookback": 8, "horizon": 4, "variates": 3, "season": 2, "batch_size": 16, **changes}
    return ForecastData(name="csv", source={"format": "csv", "files": []}, path=str(file), **arguments)


def ready(file, **changes):
    data = own(file, **changes)
    data.setup()
    return data


def test_a_window_is_the_scaled_rows_it_starts_at(file):
    data = ready(file)
    scaled = (
        torch.stack([torch.arange(100.0), torch.arange(100) % 2 * 5.0, torch.full((100,), 7.0)], 1) - data.mean
    ) / (data.std)
    batch = data.train[torch.tensor([0, 5])]
    torch.testing.assert_close(batch["x"][1], scaled[5:13].float())
    torch.testing.assert_close(batch["y"][1], scaled[13:17].float())
    assert batch["x"].shape == (2, 8, 3) and batch["y"].shape == (2, 4, 3) and batch["x"].is_contiguous()
    assert batch["marks"].shape == (2, 8, 4) and batch["future_marks"].shape == (2, 4, 4)


def test_marks_belong_to_the_rows_of_their_window(file):
    data = ready(file)
    batch = data.val[torch.tensor([3])]
    expected = torch.from_numpy(time_features(data.window_dates("val", 3)))
    torch.testing.assert_close(torch.cat([batch["marks"], batch["future_marks"]], 1)[0], expected)


def test_the_scaler_sees_the_train_rows_only_and_divides_by_the_population_deviation(file):
    data = ready(file)
    assert data.mean.dtype == torch.float64
    assert data.mean[0].item() == pytest.approx(34.5)
    assert data.std[0].item() == pytest.approx(np.arange(70).std())


def test_a_constant_column_is_scaled_by_one_and_named_once(file, caplog):
    data = ready(file)
    data.setup("test")
    assert data.std[2] == 1
    assert caplog.text.count("constant over the train rows") == 1 and "'c'" in caplog.text


def test_the_first_target_of_a_segment_is_its_first_row(file):
    data = ready(file)
    assert data.window_dates("val", 0)[8] == data.dates[70]
    assert data.window_dates("test", 0)[8] == data.dates[80]
    assert data.window_dates("test", len(data.test) - 1)[-1] == data.dates[99]
    assert (len(data.train), len(data.val), len(data.test)) == (59, 7, 17)


def test_without_overlap_inputs_stay_within_their_segment(file):
    data = ready(file, overlap=False, split=[60, 20, 20])
    assert data.window_dates("val", 0)[0] == data.dates[60]
    assert (len(data.train), len(data.val), len(data.test)) == (49, 9, 9)


def test_the_naive_scale_is_the_seasonal_error_of_the_train_rows(file):
    data = ready(file, season=3)
    assert data.naive_scale.tolist() == [3.0, 5.0, 1.0]
    assert ready(file, season=90).naive_scale[0] == 1.0


def test_an_index_outside_the_windows_is_an_error(file):
    data = ready(file)
    with pytest.raises(IndexError):
        data.val[torch.tensor([7])]
    with pytest.raises(IndexError, match="there are 7"):
        data.window_dates("val", 7)


def test_chosen_columns_give_the_univariate_task(file):
    data = ready(file, columns=["b"], variates=1)
    assert data.columns == ["b"] and data.test[torch.tensor([0])]["x"].shape == (1, 8, 1)


def test_data_without_dates_has_no_marks(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a\n" + "\n".join(map(str, range(100))))
    assert set(ready(path, variates=1, marks=0).train[torch.tensor([0])]) == {"x", "y", "window"}
    with pytest.raises(ValueError, match=r"has no dates: set data.marks=0"):
        ready(path, variates=1)


def test_what_is_left_open_is_counted(file):
    data = ready(file, variates=None, marks=None)
    assert (data.variates, data.marks) == (3, 4)


def test_a_wrong_number_of_variates_names_both(file):
    with pytest.raises(ValueError, match=r"data.variates=5, but .*own.csv gives 3 columns \(a, b, c\)"):
        ready(file, variates=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lookback": 70}, "the train segment has 70 rows; data.lookback=70 and data.horizon=4 need at least 74"),
        ({"horizon": 12}, "the validation segment has 10 rows; .* need at least 12"),
        ({"split": [60, 36, 4], "horizon": 5}, "the test segment has 4 rows; .* need at least 5"),
        ({"split": [80, 20, 20]}, "needs 120 rows, the series has 100"),
    ],
)
def test_a_segment_too_short_is_named_with_the_shortest_that_would_do(file, changes, message):
    with pytest.raises(ValueError, match=message):
        ready(file, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": [0.7, 0.1, 0.1]}, "sums to 0.9"),
        ({"split": [0.9, -0.1, 0.2]}, "three positive"),
        ({"split": [0.8, 0.2]}, "three positive"),
        ({"lookback": 0}, "data.lookback=0: give an integer of at least 1"),
        ({"horizon": 2.5}, "data.horizon=2.5"),
        ({"missing": "mean"}, "data.missing='mean': choose one of error, ffill"),
        ({"test_stride": 0}, "data.test_stride=0: give an integer of at least 1"),
        ({"input_noise": -0.1}, "data.input_noise=-0.1: give a standard deviation in units of the scaled values"),
        ({"input_noise": float("nan")}, "data.input_noise=nan"),
        ({"input_noise": True}, "data.input_noise=True"),
        ({"input_shuffle": "all"}, "data.input_shuffle='all': choose one of none, full, halves"),
        ({"marks": 5}, "data.marks=5: choose one of 0, 4"),
        ({"frequency": "hourly?"}, "is not a pandas offset"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(file, changes, message):
    with pytest.raises(ValueError, match=message):
        own(file, **changes)


def test_shares_are_rounded_as_in_the_papers():
    assert split_rows(7588, [0.7, 0.1, 0.2]) == [5311, 760, 1517]
    assert split_rows(966, [0.7, 0.1, 0.2]) == [676, 97, 193]


def test_a_full_shuffle_permutes_the_test_inputs_whatever_the_batching(file):
    plain, mixed = ready(file), ready(file, input_shuffle="full")
    index = torch.arange(len(plain.test))
    a, b = plain.test[index], mixed.test[index]
    assert not torch.equal(a["x"], b["x"])
    torch.testing.assert_close(a["x"].sort(1).values, b["x"].sort(1).values)
    torch.testing.assert_close(a["y"], b["y"])
    torch.testing.assert_close(mixed.test[index[5:6]]["x"], b["x"][5:6])
    torch.testing.assert_close(plain.val[index[:3]]["x"], mixed.val[index[:3]]["x"])


def test_halves_exchanges_the_halves_of_the_test_inputs(file):
    plain, mixed = ready(file), ready(file, input_shuffle="halves")
    x = plain.test[torch.tensor([0])]["x"]
    torch.testing.assert_close(mixed.test[torch.tensor([0])]["x"], torch.cat([x[:, 4:], x[:, :4]], 1))


def test_noise_has_the_stated_deviation_and_is_on_the_test_inputs_alone(file):
    plain, noisy = ready(file), ready(file, input_noise=0.3)
    index = torch.arange(len(plain.test))
    a, b = plain.test[index], noisy.test[index]
    noise = b["x"] - a["x"]
    assert noise.std() == pytest.approx(0.3, rel=0.1) and noise.mean().abs() < 0.05
    assert torch.equal(a["y"], b["y"]) and torch.equal(a["marks"], b["marks"])
    for split in ("train", "val"):
        assert torch.equal(getattr(plain, split)[index[:5]]["x"], getattr(noisy, split)[index[:5]]["x"])


def test_noise_of_a_window_depends_on_seed_and_window_alone(file):
    noisy = ready(file, input_noise=0.3)
    together = noisy.test[torch.arange(len(noisy.test))]["x"]
    assert torch.equal(noisy.test[torch.tensor([5, 2])]["x"], together[[5, 2]])
    assert torch.equal(ready(file, input_noise=0.3).test[torch.tensor([5])]["x"], together[5:6])
    plain = ready(file).test[torch.arange(len(noisy.test))]["x"]
    noise = together - plain
    assert not torch.allclose(noise[0], noise[1])
    other = ready(file, input_noise=0.3, seed=1).test[torch.tensor([5])]["x"] - plain[5:6]
    assert not torch.allclose(other, noise[5:6])
    torch.testing.assert_close(ready(file, input_noise=0.6).test[torch.tensor([5])]["x"] - plain[5:6], 2 * noise[5:6])


def test_a_test_stride_keeps_every_kth_window_as_it_is(file):
    every = ready(file, input_noise=0.3, input_shuffle="full")
    third = ready(file, input_noise=0.3, input_shuffle="full", test_stride=3)
    assert (len(every.test), len(third.test), len(third.val)) == (17, 6, len(every.val))
    a, b = every.test[torch.arange(0, 17, 3)], third.test[torch.arange(6)]
    assert all(torch.equal(a[key], b[key]) for key in ("x", "y", "marks", "future_marks", "window"))
    assert b["x"].is_contiguous() and b["window"].tolist() == [0, 3, 6, 9, 12, 15]
    assert list(third.window_dates("test", 5)) == list(every.window_dates("test", 15))
    with pytest.raises(IndexError):
        third.test[torch.tensor([6])]


def test_time_features_are_the_four_of_the_papers_in_their_order():
    dates = pd.DatetimeIndex(["2016-07-01 00:00", "2020-12-31 23:00"])
    expected = [[-0.5, 4 / 6 - 0.5, -0.5, 182 / 365 - 0.5], [0.5, 3 / 6 - 0.5, 0.5, 365 / 365 - 0.5]]
    np.testing.assert_allclose(time_features(dates), expected, atol=1e-6)


def test_the_dates_after_the_last_keep_the_step():
    months = pd.date_range("2020-01-01", periods=6, freq="MS")
    assert [str(d.date()) for d in following(months, 2)] == ["2020-07-01", "2020-08-01"]
    holes = pd.DatetimeIndex(["2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 02:00", "2020-01-01 05:00"])
    assert str(following(holes, 1)[0]) == "2020-01-01 06:00:00"
    with pytest.raises(ValueError, match=r"set data.frequency"):
        following(holes[:1], 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_config_composes_and_constructs(name):
    data = config(name)
    module = instantiate(data)
    assert (ROOT / "conf/data" / f"{name}.yaml").read_text().startswith("# ")
    assert module.variates == data.variates and module.lookback == data.lookback


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_says_where_it_comes_from_and_what_it_hashes_to(name):
    source = config(name).source
    assert source.files and (source.package or source.urls)
    assert all(len(h) == 64 for h in sources.accepted(source)) and sources.accepted(source)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("etth1", (8449, 2785, 2785)), ("etth2", (8449, 2785, 2785)), ("ettm1", (34369, 11425, 11425)),
        ("exchange", (5120, 665, 1422)), ("weather", (36696, 5175, 10444)), ("illness", (617, 74, 170)),
    ],
)  # fmt: skip
def test_published_window_counts_and_hashes(name, windows):
    data = real(name)
    assert (len(data.train), len(data.val), len(data.test)) == windows
    assert sources.identity(config(name)) in sources.accepted(config(name).source)


def test_train_rows_of_etth1_are_standardised():
    data = real("etth1")
    scaled = data.train[torch.arange(0, 8449, 96)]["x"].reshape(-1, 7)
    assert scaled.mean().abs() < 0.03 and (scaled.std(0) - 1).abs().max() < 0.03
    assert data.columns[-1] == "OT" and data.mean[-1].item() == pytest.approx(17.128, abs=1e-3)


def test_the_embedded_weather_of_new_york_comes_with_the_install():
    data = instantiate(config("ts_forecast", "data.download=false", "data.root=null"))
    data.setup()
    assert len(data.columns) == 27 and data.columns[0] == "EWR_temp" and data.columns[-1] == "LGA_visib"
    assert (len(data.dates), str(data.dates[0]), str(data.dates[-1])) == (
        8730,
        "2013-01-01 06:00:00",
        "2013-12-30 23:00:00",
    )
    assert (len(data.train), len(data.val), len(data.test)) == (5992, 850, 1723)
    values = data.train[torch.arange(0, 5992, 96)]["x"].reshape(-1, 27).double() * data.std + data.mean
    gust, speed = data.columns.index("EWR_wind_gust"), data.columns.index("EWR_wind_speed")
    assert values.isfinite().all() and values[:, speed].max() < 200 and values[:, gust].min().abs() < 1e-4


def test_without_the_variable_data_is_looked_for_beside_the_project(monkeypatch):
    monkeypatch.delenv("RUNNER_DATA", raising=False)
    assert ROOT.parent / "shared" / "data" in sources.places({})

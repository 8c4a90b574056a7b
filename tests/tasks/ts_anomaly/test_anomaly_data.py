"""Segments, windows that stay within them, scaling, and what wrong data is told."""

import layouts
import numpy as np
import pandas as pd
import pytest
import torch
from anomaly_configs import config, real
from hydra.utils import instantiate
from layouts import TEST, TRAIN, data, ready

from tasks import sources
from tasks.ts_anomaly.windows import tiles


@pytest.fixture
def telemetry(tmp_path):
    layouts.write_telemetry(tmp_path / "telemetry.npz")
    return tmp_path


@pytest.fixture
def own(tmp_path):
    return layouts.write_csv(tmp_path / "own.csv")


def original(module, values, segment=0):
    """Column 0 in original units: it says which channel and step a row is."""
    return (values.double() * module.std[segment] + module.mean[segment])[..., 0]


@pytest.mark.parametrize(("rows", "starts", "covered"), [(15, [0, 5, 10], [0, 0, 0]), (12, [0, 5, 7], [0, 0, 3])])
def test_tiles_stand_side_by_side_and_the_last_one_is_right_aligned(rows, starts, covered):
    first, done = tiles(0, rows, 5, 5)
    assert (first.tolist(), done.tolist()) == (starts, covered)


def test_tiles_of_forecasts_cover_every_row_that_has_a_history():
    first, done = tiles(10, 23, 7, 3)
    targets = [row for s, c in zip(first.tolist(), done.tolist(), strict=True) for row in range(s + 4 + c, s + 7)]
    assert targets == list(range(14, 23))


def test_tiles_of_a_segment_shorter_than_a_window_are_none():
    assert len(tiles(0, 4, 5, 5)[0]) == 0


@pytest.mark.parametrize(("scoring", "horizon"), [("reconstruction", 5), ("forecast", 2)])
@pytest.mark.parametrize("part", ["train", "fitted", "val", "test"])
def test_no_window_crosses_the_border_of_a_channel(telemetry, scoring, horizon, part):
    module = ready("telemetry", root=str(telemetry), scoring=scoring, horizon=horizon)
    windows = getattr(module, part)
    batch = windows[torch.arange(len(windows))]
    rows = original(module, torch.cat([batch["x"], batch["y"]], 1) if scoring == "forecast" else batch["x"])
    assert torch.allclose(rows.diff(dim=1), torch.ones(()).double(), atol=1e-2)


@pytest.mark.parametrize(("scoring", "horizon", "reach"), [("reconstruction", 5, 0), ("forecast", 2, 5)])
def test_every_test_step_is_covered_once(telemetry, scoring, horizon, reach):
    module = ready("telemetry", root=str(telemetry), scoring=scoring, horizon=horizon)
    batch = module.test[torch.arange(len(module.test))]
    steps = torch.arange(horizon)
    rows = (batch["rows"][:, None] + steps)[steps >= batch["covered"][:, None]]
    starts = np.cumsum([0, *TEST[:-1]])
    expected = [row for s, n in zip(starts, TEST, strict=True) for row in range(s + reach, s + n)]
    assert rows.tolist() == expected
    assert module.without_history.tolist() == [s + i for s in starts for i in range(reach)]


def test_reconstruction_has_its_input_as_the_target(telemetry):
    batch = ready("telemetry", root=str(telemetry)).train[torch.tensor([0, 7])]
    assert torch.equal(batch["x"], batch["y"]) and batch["x"].shape == (2, 5, 2) and batch["x"].is_contiguous()


def test_the_last_rows_of_each_channel_are_held_out_and_a_short_channel_is_trained_on_whole(telemetry):
    module = ready("telemetry", root=str(telemetry))
    assert TRAIN[1] < 2 * module.length
    assert module.val_rows.tolist() == [*range(32, 40), *range(89, 99)]
    assert sorted(module.fit_rows.tolist() + module.val_rows.tolist()) == list(range(sum(TRAIN)))
    assert len(module.train) == (32 - 4) + (9 - 4) + (40 - 4)


def test_the_scale_is_that_of_all_train_rows_or_of_each_channel(telemetry):
    together, each = (ready("telemetry", root=str(telemetry), scale=s) for s in ("together", "each"))
    train = np.concatenate([layouts.values(n, first=1000 * i) for i, n in enumerate(TRAIN)])
    np.testing.assert_allclose(together.mean[2], train.mean(0))
    np.testing.assert_allclose(together.std[0], train.std(0))
    np.testing.assert_allclose(each.mean[2], train[49:].mean(0))
    assert together.test_values[30:55].mean() > -1 and abs(each.test_values[30:55].mean()) > 1


def test_a_constant_column_is_scaled_by_one(own, caplog):
    module = ready("csv", path=str(own), train_share=0.5)
    assert module.std[0, 2] == 1 and "'flat'" in caplog.text


def test_forecasts_of_a_file_divided_by_share_look_back_at_its_train_rows(own):
    module = ready("csv", path=str(own), train_share=0.5, scoring="forecast", horizon=1)
    assert len(module.without_history) == 0 and len(module.test_rows) == 30 == len(module.test)
    assert torch.equal(module.test[torch.tensor([0])]["x"][0], module.train_values[25:30])


def test_a_label_column_is_no_variate_and_labels_the_test_part(own, caplog):
    module = ready("csv", path=str(own), train_share=0.5)
    assert module.columns == ["a", "b", "flat"] and module.labels.nonzero().flatten().tolist() == [10, 11]
    assert ready("csv", path=str(own), train_share=0.8).labels.sum() == 0
    assert "2 of the 48 train rows are labelled" in caplog.text


def test_without_a_label_column_there_are_no_labels(tmp_path):
    path = layouts.write_csv(tmp_path / "x.csv", label=None)
    assert ready("csv", path=str(path), train_share=0.5).labels is None


def test_a_label_column_of_another_name_can_be_named_or_be_a_variate(tmp_path):
    path = layouts.write_csv(tmp_path / "x.csv", label="fault")
    assert ready("csv", path=str(path), train_share=0.5, label_column="fault").columns == ["a", "b", "flat"]
    assert ready("csv", path=str(path), train_share=0.5).columns[-1] == "fault"


def test_a_file_to_train_on_leaves_the_other_to_be_scored_whole(own, tmp_path):
    train = layouts.write_csv(tmp_path / "train.csv", rows=50, anomalous=())
    module = ready("csv", path=str(own), train_path=str(train))
    assert (len(module.train_values), len(module.test_rows)) == (50, 60)


def test_rows_that_a_frequency_adds_are_not_anomalous(own):
    table = pd.read_csv(own).drop(index=[39, 45])
    table.to_csv(own, index=False)
    module = ready("csv", path=str(own), train_share=0.5, frequency="h", missing="ffill")
    assert len(module.labels) == 30 and module.labels.nonzero().flatten().tolist() == [10, 11]


def test_variates_are_counted_without_the_labels(own):
    open_config = {"source": {"format": "csv", "files": []}, "path": str(own), "train_path": None, "train_share": 0.5}
    open_config |= {"name": "csv", "columns": None, "date_column": "auto", "label_column": "auto", "variates": None}
    assert layouts.AnomalyData.complete(open_config)["variates"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring": "guess"}, "task.scoring='guess': choose one of reconstruction, forecast"),
        ({"horizon": 2}, "data.horizon=2: with task.scoring=reconstruction .* data.lookback=5"),
        ({"validation": 0.7}, r"data.validation=0.7: give a share in \(0, 0.5\]"),
        ({"train_share": 1.0}, r"data.train_share=1.0: give a share in \(0, 0.95\]"),
        ({"scale": "global"}, "data.scale='global': choose one of together, each"),
        ({"stride": 0}, "data.stride=0"),
        ({"missing": "mean"}, "data.missing='mean'"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        data("csv", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lookback": 31, "horizon": 31}, "the train part of own has 30 rows, a window needs 31"),
        ({"lookback": 20, "horizon": 20}, "no series is long enough for a window of 20 rows to train on and one to"),
        ({"variates": 4}, r"data.variates=4, but .* gives 3 columns \(a, b, flat\)"),
        ({"label_column": "lable"}, r"no column 'lable' \(data.label_column\); nearest: label"),
        ({"columns": ["a", "c"]}, r"no column 'c' \(data.columns\)"),
        ({"train_path": "absent.csv"}, "data.train_path=absent.csv does not exist"),
    ],
)
def test_wrong_data_gets_one_line_that_says_what_would_be_right(own, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ready("csv", path=str(own), **{"train_share": 0.5, **changes})


def test_missing_values_and_labels_that_are_no_labels_are_placed(own):
    table = pd.read_csv(own)
    table.loc[7, "b"] = np.nan
    table.to_csv(own, index=False)
    with pytest.raises(ValueError, match=r"column 'b' has 1 missing values, the first at line 9 .*data.missing"):
        ready("csv", path=str(own), train_share=0.5)
    table["label"] = 2
    table.to_csv(own, index=False)
    with pytest.raises(ValueError, match=r"the label of row 1 is 2.0 .*write 1 for an anomalous step"):
        ready("csv", path=str(own), train_share=0.5, missing="ffill")


def test_smd_has_its_machines_in_the_order_of_their_numbers(tmp_path):
    layouts.write_smd(tmp_path)
    module = ready("smd", root=str(tmp_path))
    assert [s.name for s in module.segments] == ["machine-1-1", "machine-1-2", "machine-1-10"]
    assert module.labels.nonzero().flatten().tolist() == [7, 30 + 7, 55 + 7]
    assert [s.name for s in ready("smd", root=str(tmp_path), series="machine-1-2").segments] == ["machine-1-2"]
    with pytest.raises(ValueError, match=r"data.series=machine-1-3: .* has no such series; nearest: machine-1-"):
        ready("smd", root=str(tmp_path), series="machine-1-3")


def test_psm_leaves_its_time_column_out_and_fills_gaps_by_rule(tmp_path):
    layouts.write_psm(tmp_path)
    module = ready("psm", root=str(tmp_path), missing="zero")
    assert module.columns == ["feature_0", "feature_1"] and module.labels.sum() == 9
    assert module.segments[0].train[4, 1] == 0
    (tmp_path / "PSM" / "test_label.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_label.csv is missing: PSM is"):
        ready("psm", root=str(tmp_path), missing="zero")


def test_nab_scores_what_follows_its_probation_and_labels_the_windows(tmp_path):
    layouts.write_nab(tmp_path)
    module = ready("nab", root=str(tmp_path), series="one", train_share=0.3)
    assert len(module.test_rows) == 28 and module.labels.nonzero().flatten().tolist() == [8, 9, 10]
    assert str(module.date(8)) == "2014-01-01 20:00:00"
    every = ready("nab", root=str(tmp_path), series=None, train_share=0.3, scale="each")
    assert [s.name for s in every.segments] == ["one", "two"] and every.borders.tolist() == [0, 28]
    assert every.mean[1, 0] - every.mean[0, 0] == 100


def test_the_telemanom_release_is_read_as_it_is_without_the_channel_listed_twice(tmp_path):
    lines = ["chan_id,spacecraft,anomaly_sequences,class,num_values"]
    for name, craft, sequence in (("Z-1", "MSL", "[[2, 4]]"), ("A-1", "MSL", "[[0, 0]]"), ("P-2", "SMAP", "[]")):
        lines.append(f'{name},{craft},"{sequence}",[point],20')
    lines += ['T-1,MSL,"[]",[point],20', 'T-1,MSL,"[]",[point],20']
    (tmp_path / "labeled_anomalies.csv").write_text("\n".join(lines))
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for name in ("Z-1", "A-1"):
            np.save(tmp_path / "data" / split / f"{name}.npy", layouts.values(20))
    source = {"format": "telemetry", "files": ["labeled_anomalies.csv"]}
    module = layouts.AnomalyData("msl", source, lookback=5, horizon=5, variates=2, root=str(tmp_path))
    module.setup()
    assert [s.name for s in module.segments] == ["A-1", "Z-1"]
    assert module.labels.nonzero().flatten().tolist() == [0, 22, 23, 24]


@pytest.mark.parametrize("name", ["msl", "smap", "smd", "psm", "nab", "nyc_cancellations", "anomaly_csv"])
@pytest.mark.parametrize(("scoring", "horizon"), [("reconstruction", None), ("forecast", 1)])
def test_every_config_constructs_and_its_horizon_follows_the_scoring(name, scoring, horizon):
    module = instantiate(config(name, f"task.scoring={scoring}"))
    assert module.scoring == scoring and module.horizon == (horizon or module.lookback)


@pytest.mark.parametrize(
    ("name", "shape", "anomalous"),
    [("msl", (58317, 73729, 55), 0.1053), ("smap", (135183, 427617, 25), 0.1279), ("nab", (1548, 8772, 1), 0.1180)],
)
def test_the_real_sets_have_the_sizes_that_their_configs_state(name, shape, anomalous):
    module = real(name)
    assert (len(module.train_values), len(module.test_rows), module.test_values.shape[1]) == shape
    assert module.labels.float().mean().item() == pytest.approx(anomalous, abs=5e-4)


def test_the_set_that_comes_with_the_install_has_the_events_that_its_config_states():
    module = real("nyc_cancellations")
    assert module.labels.sum() == 53 and module.segments[0].anomalies_trained_on == 82
    assert sources.find(module._reading) is not None

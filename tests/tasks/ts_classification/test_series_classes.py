"""The data module of labelled series: splits, scale, statements, the UEA archive by name, the data of the install."""

import logging
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from engine.compose import composed
from tasks import sources
from tasks.ts_classification.data import SeriesClasses
from tasks.ts_classification.split import stratified

NAMES = ("down", "up")


def arrays(cases: int = 20, length: int = 8, variates: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Half the cases rise, half fall; the last one is shorter."""
    y = np.arange(cases) % 2
    slope = np.linspace(0, 3, length) * (2 * y[:, None, None] - 1)
    x = slope + np.random.default_rng(seed).normal(0, 0.1, (cases, variates, length)) + 5
    lengths = np.full(cases, length)
    lengths[-1] = length - 2
    return {"X": x, "y": np.array(NAMES)[y], "lengths": lengths}


@pytest.fixture
def made(tmp_path):
    """`made(arrays, **settings)`: the data module of data=series_cases on a file of these arrays, set up."""

    def make(content=None, **settings) -> SeriesClasses:
        np.savez(tmp_path / "mine.npz", **(content or arrays()))
        data = OmegaConf.to_container(composed(["data=series_cases", f"data.path={tmp_path / 'mine.npz'}"]).data)
        data = SeriesClasses.complete(data | {"seed": 0} | settings)
        module = SeriesClasses(**{key: value for key, value in data.items() if not key.startswith("_")})
        module.prepare_data()
        module.setup()
        return module

    return make


def test_lengths_variates_and_classes_of_a_file_are_counted(made):
    data = made()
    assert (data.length, data.variates, data.classes, data.class_names) == (8, 2, 2, ["down", "up"])
    batch = data.train[torch.arange(3)]
    assert batch["x"].shape == (3, 8, 2) and batch["x"].dtype == torch.float32
    assert batch["lengths"].dtype == batch["y"].dtype == torch.int64


def test_training_has_zero_mean_and_unit_deviation_and_ends_in_zeros(made):
    data = made(arrays() | {"lengths": np.full(20, 6)})
    x = data.train.x
    assert not x[:, 6:].any()
    torch.testing.assert_close(x[:, :6].mean((0, 1)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, :6].std((0, 1), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_the_scale_is_not_that_of_validation_or_test_cases(made):
    content = arrays()
    plain = made(content)
    changed = content["X"].copy()
    outside = [int(name) - 1 for part in (plain.val, plain.test) for name in part.names]
    changed[outside] += 1000
    other = made(content | {"X": changed})
    assert torch.equal(plain.mean, other.mean) and torch.equal(plain.train.x, other.train.x)


def test_parts_are_disjoint_stratified_and_a_function_of_the_split_seed_alone(made):
    data, again, other = made(), made(seed=7), made(split_seed=1)
    parts = [set(part.names) for part in (data.train, data.val, data.test)]
    assert [len(part) for part in parts] == [12, 2, 6] and len(set.union(*parts)) == 20
    assert all(int(part.y.sum()) * 2 == len(part) for part in (data.train, data.val, data.test))
    assert data.train.names == again.train.names != other.train.names


def test_validation_may_be_none_or_the_test_part(made, caplog):
    assert made(validation=0).val is None and len(made(validation=0).train) == 14
    with caplog.at_level(logging.WARNING):
        data = made(validation="test")
    assert data.val is data.test and len(data.train) == 14 and "flatters the score" in caplog.text


def test_a_split_takes_one_of_every_class_and_never_all():
    kept, taken = stratified(["a", "a", *"b" * 10], 0.2, 0, "validation")
    labels = np.array(["a", "a", *"b" * 10])
    assert sorted(labels[taken]) == ["a", "b", "b"] and len(kept) + len(taken) == 12
    with pytest.raises(ValueError, match=r"class 'c' has one case .*data.validation=0"):
        stratified(["a", "a", "c"], 0.2, 0, "validation")


def test_a_constant_channel_is_scaled_by_one_with_a_warning(made, caplog):
    content = arrays()
    content["X"][:, 1] = 7
    with caplog.at_level(logging.WARNING):
        data = made(content)
    assert data.std[1] == 1 and not data.train.x[..., 1].any()
    assert "constant over the training cases, scaled by 1: v2" in caplog.text


def test_a_test_file_of_ones_own_is_the_test_part(made, tmp_path):
    np.savez(tmp_path / "test.npz", **arrays(cases=6, seed=1))
    data = made(test_path=str(tmp_path / "test.npz"))
    assert len(data.test) == 6 and len(data.train) + len(data.val) == 20


def changed(**values):
    return lambda content: content | values


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (changed(y=np.array(["up"] * 20)), {}, "all 20 training cases are of class 'up'"),
        (changed(y=np.array([*["up", "down"] * 9, "up", "odd"])), {}, "class 'odd' has one case"),
        (changed(), {"variates": 5}, r"data.variates=5, but .*has 2: set data.variates=2"),
        (changed(), {"classes": 3}, r"data.classes=3, but .*has 2"),
        (changed(), {"length": 4}, r"data.length=4, but .*has 8"),
        (changed(), {"class_names": ["up", "left"]}, "class down is not in data.class_names"),
        (changed(), {"validation": 1.5}, r"data.validation=1.5: give a share in \[0, 1\), or test"),
        (changed(), {"validation": "tset"}, "data.validation='tset'"),
        (changed(), {"test_share": 0}, "data.test_share=0"),
        (changed(), {"scale": "log"}, "data.scale='log': choose one of standard, none"),
        (changed(), {"test_path": "nowhere.npz"}, r"data.test_path=nowhere.npz does not exist"),
        (lambda content: {"X": content["X"]}, {}, "has no labels"),
    ],
)
def test_wrong_cases_and_wrong_statements_are_told_in_one_line(made, change, settings, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words) as told:
        made(change(arrays()), **settings)
    assert "\n" not in str(told.value)


def test_a_class_that_training_lacks_is_named(made, tmp_path):
    np.savez(tmp_path / "test.npz", **(arrays(cases=6) | {"y": np.array(["up", "down", "odd"] * 2)}))
    with pytest.raises(ValueError, match=r"test.npz: no training case is of class odd; those of .* are of down, up"):
        made(test_path=str(tmp_path / "test.npz"))


def uea(name: str, *overrides: str) -> SeriesClasses:
    """The data module of data=uea, set up."""
    config = OmegaConf.to_container(
        composed(["data=uea", f"data.name={name}", "data.validation=0", *overrides]).data, resolve=True
    )
    module = SeriesClasses(**{k: v for k, v in SeriesClasses.complete(config).items() if not k.startswith("_")})
    module.prepare_data()
    module.setup()
    return module


def ts(cases: int = 15) -> str:
    """AtrialFibrillation's layout and sizes with made-up values."""
    generator = np.random.default_rng(0)
    rows = [
        ":".join([*(",".join(map(str, row)) for row in generator.integers(0, 9, (2, 640))), "nst"[i % 3]])
        for i in range(cases)
    ]
    return "@univariate false\n@classLabel true n s t\n@data\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_a_set_of_the_archive_is_found_by_name_in_either_layout(tmp_path, layout):
    if layout == "zip":
        with zipfile.ZipFile(tmp_path / "AtrialFibrillation.zip", "w") as archive:
            for part in ("TRAIN", "TEST"):
                archive.writestr(f"AtrialFibrillation_{part}.ts", ts())
    else:
        (tmp_path / "AtrialFibrillation").mkdir()
        for part in ("TRAIN", "TEST"):
            (tmp_path / "AtrialFibrillation" / f"AtrialFibrillation_{part}.ts").write_text(ts())
    data = uea("AtrialFibrillation", f"data.root={tmp_path}")
    assert (len(data.train), len(data.test), data.class_names) == (15, 15, ["n", "s", "t"])


def test_a_set_of_the_archive_is_downloaded_as_a_zip_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    origin = tmp_path / "AtrialFibrillation.zip"
    with zipfile.ZipFile(origin, "w") as archive:
        for part in ("TRAIN", "TEST"):
            archive.writestr(f"AtrialFibrillation_{part}.ts", ts())
    here = (f"data.root={tmp_path / 'empty'}", f"data.source.urls=['{origin.as_uri()}']")
    assert len(uea("AtrialFibrillation", *here).train) == 15
    origin.unlink()
    assert len(uea("AtrialFibrillation", *here).train) == 15


def test_a_set_that_is_not_the_stated_one_is_refused_with_the_wrong_number(tmp_path):
    (tmp_path / "AtrialFibrillation").mkdir()
    for part, cases in (("TRAIN", 15), ("TEST", 12)):
        (tmp_path / "AtrialFibrillation" / f"AtrialFibrillation_{part}.ts").write_text(ts(cases))
    with pytest.raises(ValueError, match=r"data.cases=\[15, 15\] .*has \[15, 12\]"):
        uea("AtrialFibrillation", f"data.root={tmp_path}")


def test_the_identity_of_a_set_covers_its_test_file(tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"x_{part}.csv").write_text(part)
    data = {"path": str(tmp_path / "x_TRAIN.csv")}
    before = sources.identity(data)
    (tmp_path / "x_TEST.csv").write_text("other")
    assert sources.identity(data) != before


def test_an_unknown_set_gets_the_nearest_names(runner):
    outcome = runner("task=ts_classification", "data=uea", "data.name=BasicMotion", "mode=describe")
    assert outcome.code == 2 and "no 'BasicMotion'; did you mean BasicMotions" in outcome.line


SHARED = [path.stem for root in sources.places({}) for path in sorted((root / "uea_mtsc").glob("*.npz"))]


@pytest.mark.skipif(not SHARED, reason="no uea_mtsc/*.npz under $RUNNER_DATA or ../shared/data")
def test_the_sets_at_hand_are_as_large_as_stated():
    for name in SHARED:
        data = uea(name)
        assert [len(data.train), len(data.test)] == data.cases


def test_days_of_weather_are_split_in_time_and_have_every_airport_and_season():
    config = OmegaConf.to_container(composed(["data=nyc_weather_days", "data.validation=0"]).data, resolve=True)
    data = SeriesClasses(**{key: value for key, value in config.items() if not key.startswith("_")})
    data.setup()
    assert data.class_names == ["EWR", "JFK", "LGA"] and data.train.x.shape[1:] == (24, 9)
    days = [{name.split()[0] for name in part.names} for part in (data.train, data.test)]
    assert not days[0] & days[1] and all(len({day[:7] for day in part}) == 12 for part in days)
    assert data.train.y.bincount().tolist() == [len(days[0])] * 3


def test_validation_takes_a_word_on_the_command_line_but_no_other_key_does(runner):
    assert runner("task=ts_classification", "mode=describe", "data.validation=test").code == 0
    assert runner("task=ts_classification", "mode=describe", "data.test_share=test").code == 2

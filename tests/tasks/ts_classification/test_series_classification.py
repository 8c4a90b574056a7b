"""task=ts_classification as a user runs it: training, testing, predicting a file, figures."""

import json
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from command import call
from PIL import Image

from models.shapelets import Shapelet
from tasks.ts_classification import figures

L, VARIATES = 12, ("x", "y")


def table(cases: int = 24, first: int = 0, shortest: int = 8) -> pd.DataFrame:
    """Long layout: cases that rise or fall in x, of 8 to 12 steps; y is noise."""
    generator = np.random.default_rng(first)
    rows = [
        (f"c{i}", t, ("down", "up")[i % 2], t * (2 * (i % 2) - 1) + generator.normal(0, 0.3), generator.normal())
        for i in range(first, first + cases)
        for t in range(max(shortest, L - i % 5))
    ]
    return pd.DataFrame(rows, columns=["case", "time", "label", *VARIATES])


SMALL = ("model.d_model=8", "model.heads=2", "model.depth=1", "model.d_ff=16", "data.batch_size=4")
TRAINED = ("optim.lr=0.01", "trainer.max_epochs=8", "trainer.patience=null", "trainer=cpu", "logger=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of a small Transformer on a long CSV."""
    folder = tmp_path_factory.mktemp("trained")
    table().to_csv(folder / "mine.csv", index=False)
    data = ("data=series_cases", f"data.path={folder / 'mine.csv'}", "data.validation=0")
    outcome = call(folder, "task=ts_classification", *data, *SMALL, *TRAINED)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture
def predict(runner, trained, tmp_path):
    """`predict(table)`: the outcome of mode=predict on that table, and what it wrote."""

    def ask(frame: pd.DataFrame, name: str = "new.csv"):
        frame.to_csv(tmp_path / name, index=False)
        files = (f"input={tmp_path / name}", f"output={tmp_path / 'labels.csv'}")
        outcome = runner("mode=predict", f"ckpt={trained.dir / 'best.ckpt'}", *files)
        return outcome, pd.read_csv(tmp_path / "labels.csv") if outcome.code == 0 else None

    return ask


def test_a_run_tells_rising_from_falling_series(trained):
    results = trained.results
    assert results["metrics"]["test/accuracy"] == 1.0
    assert results["baselines"]["majority"]["test/accuracy"] == 0.5
    assert {"test/f1", "test/balanced_accuracy", "test/ece", "test/loss"} <= set(results["metrics"])
    assert results["details"]["classes"] == ["down", "up"]


def test_figures_are_pictures(trained):
    names = {path.name for path in (trained.dir / "figures").iterdir()}
    assert names == {"confusion.png", "cases.png", "attention.png", "loss.png"}
    for name in names:
        assert np.asarray(Image.open(trained.dir / "figures" / name).convert("L")).std() > 5


def test_prediction_names_the_class_of_every_case(predict):
    new = table(cases=6, first=100).drop(columns="label")
    outcome, written = predict(new)
    assert list(written) == ["case", "predicted", "p(down)", "p(up)"]
    assert list(written["case"]) == [f"c{i}" for i in range(100, 106)]
    assert list(written["predicted"]) == ["down", "up"] * 3
    np.testing.assert_allclose(written[["p(down)", "p(up)"]].sum(axis=1), 1, atol=1e-6)
    assert outcome.out.startswith("6 cases classified:")


def test_prediction_finds_variates_by_name_and_counts_what_agrees(predict):
    new = table(cases=6, first=100)
    _, plain = predict(new)
    outcome, reordered = predict(new.assign(extra=1.0)[["extra", "y", "x", "label", "case", "time"]])
    pd.testing.assert_frame_equal(plain, reordered)
    assert "6 of them as the file labels them" in outcome.out


def test_prediction_does_not_depend_on_the_other_cases_of_the_file(predict):
    new = table(cases=6, first=100)
    _, together = predict(new)
    _, alone = predict(new[new["case"] == "c103"])
    np.testing.assert_allclose(alone["p(up)"], together["p(up)"][3:4], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="y"), ["no variate y", "trained on x, y"]),
        (lambda frame: frame.rename(columns={"y": "z"}), ["no variate y", "x, z"]),
        (lambda frame: pd.concat([frame, frame[-1:].assign(time=99), frame[-1:].assign(time=100)] * 1), []),
        (lambda frame: frame.assign(x="warm"), ["column 'x', line 2", "'warm' is not a number"]),
        (lambda frame: frame.head(0), ["no rows"]),
        (lambda frame: frame.assign(x=frame["x"].where(frame["time"] != 3)), ["case c100", "channel x", "index 3"]),
    ],
    ids=["missing", "other", "longer", "text", "empty", "gap"],
)
def test_a_wrong_file_to_predict_is_told_in_one_line(predict, change, words):
    frame = table(cases=2, first=100, shortest=12)
    if not words:
        words = ["case c101 has 14 steps, the model takes at most 12"]
    outcome, _ = predict(change(frame))
    assert outcome.code == 2 and all(word in outcome.line for word in words), outcome.err


def test_a_test_of_the_checkpoint_gives_the_same_scores(runner, trained):
    outcome = runner("mode=test", f"ckpt={trained.dir / 'best.ckpt'}", "logger=none", "hydra.run.dir=again")
    scores = json.loads((outcome.folder / "again" / "results.json").read_text())["metrics"]
    assert scores == {k: v for k, v in trained.results["metrics"].items() if k.startswith("test/")}


@pytest.mark.skipif(find_spec("aeon") is None, reason="model=rocket needs aeon: pip install aeon")
def test_a_model_without_training_is_scored_and_predicts(runner, trained, tmp_path):
    source = next(trained.folder.glob("mine.csv"))
    run = runner(
        *("task=ts_classification", "data=series_cases", f"data.path={source}", "data.validation=0"),
        *("model=rocket", "model.kernels=200", "trainer=cpu", "logger=none", "hydra.run.dir=rocket"),
    )
    assert run.code == 0, run.err
    assert json.loads((tmp_path / "rocket" / "results.json").read_text())["metrics"]["test/accuracy"] > 0.7
    ckpt = tmp_path / "rocket" / "best.ckpt"
    outcome = runner("mode=predict", f"ckpt={ckpt}", f"input={source}", f"output={tmp_path / 'labels.csv'}")
    assert outcome.code == 0 and outcome.out.startswith("24 cases classified"), outcome.err


@pytest.mark.parametrize("arguments", [(), ("data=uea", "data.name=EigenWorms", "data.root=nowhere")])
def test_describe_needs_no_data(runner, arguments):
    outcome = runner("task=ts_classification", "mode=describe", *arguments)
    assert outcome.code == 0 and "parameters" in outcome.out, outcome.err


class Cases:
    """Two training cases of a datamodule, as the figure of shapelets reads them."""

    class_names, variate_names = ["down", "up"], ["x", "y"]
    mean, std = torch.zeros(2), torch.ones(2)

    class train:
        x = torch.arange(2 * L * 2).float().view(2, L, 2)
        lengths, names = torch.tensor([L, L - 2]), ["a", "b"]


def test_shapelets_are_drawn_over_the_series_they_come_from():
    found = [Shapelet(1, 0, 2, 6, 1, 0.5), Shapelet(0, 1, 0, 3, 0, 0.9)]
    figure = figures.draw_shapelets(found, Cases)
    whole, part = figure.axes[1].lines
    assert len(whole.get_xdata()) == L - 2 and list(part.get_xdata()) == [2, 3, 4, 5]
    np.testing.assert_array_equal(part.get_ydata(), Cases.train.x[1, 2:6, 0])
    assert figure.axes[1].get_title() == "up: x of b, 0.50 bits"


def test_the_figure_of_shapelets_takes_classes_in_turn():
    found = [Shapelet(0, 0, 0, 3, label, gain) for label, gain in [(0, 0.9), (0, 0.8), (0, 0.7), (1, 0.2), (1, 0.3)]]
    assert [(one.label, one.gain) for one in figures.best_in_turn(found, 4)] == [(0, 0.9), (1, 0.3), (0, 0.8), (1, 0.2)]

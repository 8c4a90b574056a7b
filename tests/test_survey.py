"""benchmarks/survey: which runs a finding compares, and the rules of `seen`."""

import sys

import pytest

from engine import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from survey_findings import BASE, Cells, change, findings, triple


def run(model, seed, mse, **changes):
    plain = {"decomposition": model in ("autoformer", "fedformer"), "use_norm": model == "itransformer"}
    return {**BASE, **plain, "model": model, "seed": seed, "mse": mse, "path": f"{model}-{seed}", **changes}


def cells(*rows):
    return Cells(
        [run(model, seed, mse, **changes) for model, scores, changes in rows for seed, mse in enumerate(scores)]
    )


def verdict(cells, model, words):
    return next(f for f in findings(cells) if f.model == model and words in f.text)


def test_a_change_is_that_of_each_seeds_pair():
    middle, spread = change([1.0, 2.0], [0.9, 2.2])
    assert middle == pytest.approx(0.0) and spread == pytest.approx(0.2 / 2**0.5)


@pytest.mark.parametrize(
    ("after", "seen"), [([0.5, 0.51, 0.49], False), ([0.9, 1.1, 1.0], True), ([1.5, 1.4, 1.6], True)]
)
def test_longer_input_does_not_help_unless_it_gains_more_than_the_seeds_differ(after, seen):
    runs = cells(("transformer", [1.0, 1.0, 1.0], {}), ("transformer", after, {"lookback": 336}))
    assert verdict(runs, "transformer", "336 steps of input are no better").seen is seen


def test_a_model_without_the_runs_gets_no_verdict():
    found = verdict(cells(("transformer", [1.0, 1.1], {})), "transformer", "6 layers")
    assert found.seen is None and found.measured == "runs are missing"


@pytest.mark.parametrize(("split", "seen"), [([0.7, 0.7], True), ([0.85, 0.85], False), ([0.1, 1.4], False)])
def test_decomposition_must_gain_a_fifth_and_more_than_the_seeds_differ(split, seen):
    runs = cells(("informer", [1.0, 1.0], {}), ("informer", split, {"decomposition": True, "plain": False}))
    assert verdict(runs, "informer", "decomposition lowers").seen is seen


def test_two_runs_of_a_seed_for_one_cell_are_an_error():
    with pytest.raises(ValueError, match="several runs of a seed"):
        cells(("dlinear", [1.0], {}), ("dlinear", [2.0], {})).mse(model="dlinear")


def test_dlinear_without_decomposition_is_the_linear_model():
    without, split, normed = triple(cells(("linear", [1.0], {}), ("dlinear", [0.9], {})), "dlinear", 96)
    assert (without, split, normed) == ([1.0], [0.9], [])

"""mode=claim: when a claim holds, and that both sides really run."""

import json
import os
from pathlib import Path

import pytest
from command import ROOT

from engine.claim import judge, places

SMALLER = {"direction": "min", "margin": 0.1}
LARGER = {"direction": "max", "margin": 0.1}


@pytest.mark.parametrize(
    ("ours", "theirs", "stated", "holds"),
    [
        ([1.0, 1.0], [1.2, 1.2], SMALLER, True),
        ([1.0, 1.0], [1.05, 1.05], SMALLER, False),
        ([1.0, 1.0], [0.8, 0.8], SMALLER, False),
        ([0.9, 1.1], [0.9, 1.5], SMALLER, True),
        ([0.8], [0.6], LARGER, True),
        ([0.8], [0.75], LARGER, False),
        ([0.8], [0.9], LARGER, False),
        ([1.0], [0.97], {"direction": "min", "margin": -0.05}, True),
        ([1.0], [0.9], {"direction": "min", "margin": -0.05}, False),
        ([0.8], [0.82], {"direction": "max", "margin": -0.05}, True),
        ([0.80], [0.77], {"direction": "max", "margin": 0.02, "difference": "absolute"}, True),
        ([0.80], [0.77], {"direction": "max", "margin": 0.04, "difference": "absolute"}, False),
        ([2.0], [2.5], {"direction": "min", "margin": 0.4, "difference": "absolute"}, True),
    ],
)
def test_a_claim_holds_where_the_baseline_is_worse_by_the_margin(ours, theirs, stated, holds):
    assert judge(ours, theirs, stated)["holds"] is holds


def test_gap_and_spread_are_relative_to_the_preset():
    verdict = judge([1.0, 2.0], [1.5, 2.0], SMALLER)
    assert verdict["gap"] == pytest.approx(0.5 / 3)
    assert verdict["spread"] == pytest.approx(0.5 / 2**0.5)
    assert verdict["seeds"] == 2


def test_a_claim_over_several_settings_runs_every_combination_of_them():
    assert places({}) == [[]]
    assert places({"data.name": ["A", "B"], "data.lookback": [96]}) == [
        ["data.name=A", "data.lookback=96"],
        ["data.name=B", "data.lookback=96"],
    ]


def test_a_claim_needs_a_preset_that_states_one(runner, tmp_path):
    outcome = runner("mode=claim", "logger=none")
    assert outcome.code == 2 and "preset" in outcome.line
    assert list(tmp_path.iterdir()) == []


def data_folder() -> Path:
    return Path(os.environ.get("RUNNER_DATA") or ROOT.parent / "shared" / "data")


def test_both_sides_run_on_every_seed_and_the_verdict_follows_the_numbers(runner, tmp_path):
    if not list(data_folder().glob("**/ETTh1.csv*")):
        pytest.skip("ETTh1 is neither in RUNNER_DATA nor in ../shared/data")
    few = [f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
    baseline = "paper.claim.baseline=['model=last_value']"
    command = ("mode=claim", "preset=ltsf_linear", "logger=none", "trainer=cpu", "trainer.max_epochs=1", *few)
    outcome = runner(*command, baseline, "paper.claim.seeds=[0,1]")
    assert outcome.code == 0, outcome.err
    stored = json.loads(next(tmp_path.rglob("claim.json")).read_text())
    runs = [json.loads(path.read_text()) for path in tmp_path.rglob("results.json")]
    for side, model in (("preset", "dlinear"), ("baseline", "last_value")):
        found = sorted((r["seed"], r["metrics"]["test/mse"]) for r in runs if r["choices"]["model"] == model)
        assert [seed for seed, _ in found] == [0, 1]
        assert [score for _, score in found] == stored["scores"][side]
    ours, theirs = (sum(stored["scores"][side]) / 2 for side in ("preset", "baseline"))
    assert stored["gap"] == pytest.approx((theirs - ours) / ours)
    assert stored["holds"] is (stored["gap"] >= 0.3)
    assert ("The claim holds" in outcome.out) is stored["holds"]

    turned = runner(*command, baseline, "paper.claim.seeds=[0,1]", f"paper.claim.margin={stored['gap'] + 0.1}")
    assert turned.err.count("used again") == 4
    assert "does NOT hold" in turned.out

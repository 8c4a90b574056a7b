"""A preset's arguments, another model: what is left out and what is refused."""

import pytest
from omegaconf import OmegaConf

from engine.errors import UserError
from engine.trust import check_targets, target_of

PRESET = ("preset=itransformer", "mode=describe")


def test_a_preset_with_another_model_leaves_out_what_that_model_does_not_take(runner):
    outcome = runner(*PRESET, "model=linear")
    assert outcome.code == 0, outcome.err
    assert f"{96 * 96 + 96:,}" in outcome.out
    left_out = next(line for line in outcome.err.splitlines() if "left out" in line)
    assert all(name in left_out for name in ("d_model", "heads", "use_norm"))


def test_an_argument_that_the_model_does_not_take_is_refused_where_the_user_typed_it(runner):
    outcome = runner(*PRESET, "model=linear", "model.d_model=64")
    assert outcome.code == 2
    assert "model.d_model" in outcome.line and "takes no d_model" in outcome.line


def test_a_new_argument_that_the_model_does_not_take_is_refused(runner):
    outcome = runner("mode=describe", "model=linear", "+model.depth=3")
    assert outcome.code == 2 and "takes no depth" in outcome.line


@pytest.mark.parametrize("model", ["linear", "dlinear", "transformer"])
def test_training_on_some_variates_is_refused_for_a_model_tied_to_them(runner, model):
    individual = ["model.individual=true"] if model != "transformer" else []
    outcome = runner("mode=describe", f"model={model}", *individual, "task.train_variates=0.5")
    assert outcome.code == 2
    assert "task.train_variates=0.5" in outcome.line and "itransformer" in outcome.line


def test_training_on_some_variates_is_tested_on_all(runner, tiny):
    outcome = runner(*tiny, "task.train_variates=0.34")
    assert outcome.code == 0, outcome.err
    assert len(outcome.results["details"]["mse_per_variate"]) == 3


@pytest.mark.parametrize(
    "path",
    ["os.system", "builtins.eval", "torch.load", "models.linear.torch.load", "tasks.sources.os.system", "models."],
)
def test_a_target_may_not_lead_outside(path):
    with pytest.raises(UserError, match="_target_"):
        target_of({"_target_": path})


def test_targets_are_checked_at_any_depth():
    fine = {"a": [{"_target_": "models.linear.Linear"}]}
    check_targets(fine)
    with pytest.raises(UserError, match=r"os\.system"):
        check_targets({**fine, "b": {"c": [{"d": {"_target_": "os.system"}}]}})


def test_a_baseline_that_the_data_does_not_allow_is_left_out(runner, data_args):
    outcome = runner(*data_args, "model=last_value", "data.season=100")
    assert outcome.code == 0, outcome.err
    assert set(outcome.results["baselines"]) == {"last_value"}
    assert "seasonal_naive is left out" in (outcome.dir / "run.log").read_text() + outcome.err


def test_the_config_of_a_run_gives_the_run_again(runner, fitted):
    cfg = OmegaConf.load(fitted.dir / "config.yaml")
    assert cfg.data.variates == 3 and cfg.data.path
    assert check_targets(OmegaConf.to_container(cfg)) is None

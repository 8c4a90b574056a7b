"""A paper's figures for the run at hand: chosen by horizon and by model, and what leaves the published set-up."""

import json
from pathlib import Path

import pytest
from command import call
from omegaconf import OmegaConf
from small_series import write_series

from engine.compose import compose_run
from engine.published import published
from engine.run import Run

BY_HORIZON = {96: {"test/mse": 0.1}, 192: {"test/mse": 0.2, "source": "another table"}}
BY_MODEL = {"linear": BY_HORIZON, "dlinear": {96: {"test/mse": 0.3}}}


def run_of(paper: dict | None, *overrides: str, model: str = "linear", horizon: int = 96) -> Run:
    cfg = OmegaConf.create({"paper": paper, "data": {"horizon": horizon}})
    return Run(cfg, Path("nowhere"), {"model": model}, list(overrides))


@pytest.mark.parametrize(("horizon", "figure"), [(96, 0.1), (192, 0.2)])
def test_a_figure_is_chosen_by_the_horizon(horizon, figure):
    paper = {"published_by": "data.horizon", "published": BY_HORIZON}
    assert published(run_of(paper, horizon=horizon))["test/mse"] == figure


@pytest.mark.parametrize(("model", "figure"), [("linear", 0.1), ("dlinear", 0.3)])
def test_a_figure_is_chosen_by_model_and_horizon(model, figure):
    paper = {"published_by": ["model", "data.horizon"], "published": BY_MODEL}
    assert published(run_of(paper, model=model))["test/mse"] == figure


@pytest.mark.parametrize(("model", "horizon"), [("nlinear", 96), ("dlinear", 192)])
def test_no_figure_is_shown_for_what_the_paper_does_not_list(model, horizon):
    paper = {"published_by": ["model", "data.horizon"], "published": BY_MODEL}
    assert published(run_of(paper, model=model, horizon=horizon)) is None


def test_a_flat_row_of_figures_needs_no_key():
    assert published(run_of({"published": {"test/mse": 0.4}}))["test/mse"] == 0.4
    assert published(run_of(None)) is None


def test_the_source_of_the_figure_wins_over_the_papers():
    paper = {"published_by": "data.horizon", "published": BY_HORIZON, "source": "main table"}
    assert published(run_of(paper))["source"] == "main table"
    assert published(run_of(paper, horizon=192))["source"] == "another table"


def changed(tmp_path, *overrides: str) -> list[str]:
    return published(compose_run(list(overrides), tmp_path))["changed"]


def test_what_leaves_the_published_set_up_is_named(tmp_path):
    free = ("preset=itransformer/etth1", "seed=3", "logger=none", "data.root=x", "data.horizon=192", "kernel=reference")
    changes = ("optim.lr=1", "data=weather", "model/mixer=flow", "+optim.amsgrad=true")
    assert changed(tmp_path, *free, *changes) == list(changes)


def test_repeating_what_the_preset_states_leaves_nothing(tmp_path):
    repeated = ("model=itransformer", "model/mixer=attention", "optim.lr=1e-4", "optim.betas=[0.9,0.999]")
    assert changed(tmp_path, "preset=itransformer/etth1", *repeated) == []


def test_the_model_is_free_only_where_it_chooses_the_figure(tmp_path):
    assert changed(tmp_path, "preset=itransformer/etth1", "model=linear") == ["model=linear"]
    assert changed(tmp_path, "preset=ltsf_linear/etth1", "model=linear") == []


def test_a_checkpoint_keeps_what_left_the_published_set_up(tmp_path):
    series = write_series(tmp_path / "long.csv", rows=1200)
    data = ("data=csv", f"data.path={series}", "data.lookback=24", "trainer=cpu", "logger=none")
    trained = call(
        tmp_path,
        "preset=ltsf_linear",
        "model=linear",
        *data,
        "trainer.max_steps=1",
        "optim.lr=1e-9",
        "hydra.run.dir=run",
    )
    assert trained.code == 0, trained.err
    tested = call(tmp_path, "mode=test", "ckpt=run/best.ckpt", "data.batch_size=8", "hydra.run.dir=test")
    assert tested.code == 0, tested.err
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "test")]
    left = [result["published"]["changed"] for result in results]
    assert "optim.lr=1e-9" in left[0] and left[1] == [*left[0], "data.batch_size=8"]

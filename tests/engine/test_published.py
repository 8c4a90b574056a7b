"""A paper's figures for the run at hand: chosen by horizon and by model, and what leaves the published set-up."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

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


def test_what_leaves_the_published_set_up_is_named():
    free = (
        "preset=x",
        "seed=3",
        "logger=none",
        "data.root=/x",
        "data.horizon=96",
        "kernel=reference",
        "hydra.run.dir=x",
    )
    changes = ("optim.lr=1", "data=weather", "+model.depth=2")
    figures = published(run_of({"published": {"test/mse": 0.4}}, *free, *changes))
    assert figures["changed"] == list(changes)


def test_the_model_is_free_only_where_it_chooses_the_figure():
    flat = {"published": {"test/mse": 0.4}}
    chosen = {"published_by": ["model", "data.horizon"], "published": BY_MODEL}
    assert published(run_of(flat, "model=linear"))["changed"] == ["model=linear"]
    assert published(run_of(chosen, "model=linear"))["changed"] == []

"""Every preset composes, resolves, says where its figures come from, and builds a model of the published size."""

import re

import pytest
import torch
from presets import CONF, PRESETS, composed, figures, parameters, resolved

from engine.build import build_model
from engine.compose import compose_run
from engine.published import as_list

PAPERS = {
    "itransformer": 2023,
    "ltsf_linear": 2022,
    "s_mamba": 2024,
    "shapeformer": 2024,
    "ts_survey": 2022,
    "vsformer": 2024,
}
ROWS = {"etth1", "etth2", "ettm1", "ettm2", "exchange", "weather", "electricity", "traffic"}
INVERTED_ROWS = ROWS | {"solar", "pems03", "pems04", "pems07", "pems08"}
EXPECTED = {
    "itransformer": INVERTED_ROWS
    | {"unseen_variates", "efficient_training", "lookback", "variate_attention", "inverting"},
    "ltsf_linear": ROWS
    | {"illness", "order", "electricity_individual", "traffic_individual", "weather_individual", "ettm1_individual"},
    "s_mamba": INVERTED_ROWS | {"bidirectional"},
    "ts_survey": {"robust", "robust_linear", "size", "decomp", "use_norm", "classification"}
    | {"published_robust", "published_size", "published_decomp"}
    | {"anomaly_msl", "published_msl", "published_smap"},
    "shapeformer": {"uea", "specific", "random"},
    "vsformer": {"uea", "ablation", "prior", "value"},
}
TAXONOMY = {  # Wen et al. 2022, sec. 3 to 5; none, state-space, inverted, linear, branches are beyond it
    "task": ("forecasting", "anomaly-detection", "classification", "imputation"),
    "positions": ("vanilla", "learnable", "timestamp", "none"),
    "attention": ("full", "sparse", "low-rank", "state-space", "none"),
    "architecture": ("plain", "decomposition", "hierarchical", "inverted", "linear", "branches"),
}


def test_every_row_of_the_papers_tables_is_a_preset():
    assert set(PRESETS) == {name for slug in PAPERS for name in [slug, *(f"{slug}/{row}" for row in EXPECTED[slug])]}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_starts_with_the_global_package_and_a_description(preset):
    first, second = (CONF / "preset" / f"{preset}.yaml").read_text().splitlines()[:2]
    assert first == "# @package _global_"
    assert re.fullmatch(r"# \S.{20,}", second)


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_has_a_complete_paper_block(preset):
    paper = resolved(preset)["paper"]
    assert paper["title"] and paper["source"]
    assert {"published", "published_by", "claim"} <= set(paper)
    assert paper["year"] == PAPERS[preset.split("/")[0]]
    assert re.fullmatch(r"\d{4}\.\d{5}", paper["arxiv"])
    assert paper["code"] is None or paper["code"].startswith("https://github.com/")


@pytest.mark.parametrize("preset", PRESETS)
def test_tags_are_words_of_the_surveys_taxonomy(preset):
    for kind, words in (resolved(preset)["paper"].get("tags") or {}).items():
        assert set(TAXONOMY[kind]) >= set(as_list(words)), kind


@pytest.mark.parametrize("preset", PRESETS)
def test_claim_can_be_judged(preset):
    claim = resolved(preset)["paper"]["claim"]
    assert claim["text"] and claim["metric"].startswith("test/") and claim["direction"] in ("min", "max")
    assert claim.get("difference", "relative") in ("relative", "absolute")
    assert all(len(values) > 1 for values in (claim.get("over") or {}).values())
    assert isinstance(claim["margin"], float) and -1 < claim["margin"] < 10
    assert len(claim["seeds"]) >= 3 and len(claim["baseline"]) >= 1


@pytest.mark.parametrize("preset", PRESETS)
def test_every_published_figure_is_a_number_with_a_known_name(preset):
    for _, row in figures(preset):
        assert any(name.startswith("test/") for name in row)
        assert all(isinstance(value, float) and value > 0 for value in row.values())
        assert all(name.startswith("test/") or name == "params_m" for name in row)


def test_experiments_without_published_figures_do_not_inherit_those_of_the_laptop_row():
    for preset in (
        "itransformer/lookback",
        "itransformer/variate_attention",
        "ltsf_linear/order",
        "s_mamba/bidirectional",
    ):
        assert figures(preset) == []
    assert {dict(setting)["data.horizon"] for setting, _ in figures("ltsf_linear/illness")} == {24, 36, 48, 60}
    assert all("test/mae" not in row for _, row in figures("ltsf_linear/weather_individual"))


@pytest.mark.parametrize("preset", PRESETS)
def test_model_has_the_published_number_of_parameters_at_every_horizon(preset):
    for setting, row in figures(preset):
        if "params_m" in row:
            assert parameters(resolved(preset, setting)) == round(row["params_m"] * 1e6), setting


STATE_A_BASELINE = [p for p in PRESETS if "baseline:" in (CONF / "preset" / f"{p}.yaml").read_text()]
"""The others inherit theirs."""


@pytest.mark.parametrize("preset", STATE_A_BASELINE)
def test_baseline_of_the_claim_builds_and_differs_from_the_preset(preset, tmp_path):
    run = compose_run([f"preset={preset}", *resolved(preset)["paper"]["claim"]["baseline"]], tmp_path)
    theirs, ours = run.plain(), resolved(preset)
    assert any(theirs[group] != ours[group] for group in ("model", "task", "data", "optim", "trainer"))
    with torch.device("meta"):
        build_model(run, theirs)


def test_fair_baseline_keeps_the_normalisation_that_the_first_one_lacks():
    plain, fair = (composed(f"preset={name}").paper.claim for name in ("itransformer", "itransformer/inverting"))
    assert "model.use_norm=false" in plain.baseline and "model.use_norm=true" in fair.baseline


def test_variant_chosen_on_the_command_line_keeps_the_rest_of_the_row():
    cfg = composed("preset=ltsf_linear/weather_individual", "model=nlinear")
    assert (cfg.model._target_, cfg.model.individual, cfg.data.name) == ("models.linear.NLinear", True, "weather")
    assert cfg.hydra.runtime.choices.model in cfg.paper.published


def test_command_line_wins_over_the_preset():
    cfg = composed("preset=itransformer/etth1", "optim.lr=0.5", "data=weather")
    assert (cfg.optim.lr, cfg.data.name) == (0.5, "weather")


def test_lookback_preset_sweeps_over_the_papers_lookbacks():
    assert composed("preset=itransformer/lookback").hydra.sweeper.params["data.lookback"] == "48,96,192,336,720"

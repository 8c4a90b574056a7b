"""mode=describe and mode=catalog: from the config alone."""

import pytest

from engine.explain import options
from engine.flops import forward_cost
from models.linear import Linear
from tasks.ts_forecast.task import Forecast


def row(text: str, label: str) -> str:
    """The line of the printed table that begins with a label."""
    return next(line for line in text.splitlines() if label in line)


def test_describe_needs_no_data_and_finds_the_published_size(runner, tmp_path):
    (tmp_path / "nothing").mkdir()
    outcome = runner("mode=describe", "preset=itransformer/electricity", f"data.root={tmp_path / 'nothing'}")
    assert outcome.code == 0, outcome.err
    line = row(outcome.out, "parameters ")
    assert "4,833,888" in line and "4.83389 M" in line
    assert "0.148" in row(outcome.out, "test/mse")
    assert "not the published set-up" not in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["nothing"]


def test_describe_takes_the_published_figure_of_the_horizon(runner):
    out = runner("mode=describe", "preset=itransformer/electricity", "data.horizon=720").out
    assert "5,154,000" in row(out, "parameters ") and "0.225" in row(out, "test/mse")


def test_describe_says_what_leaves_the_published_set_up(runner):
    out = runner("mode=describe", "preset=itransformer/electricity", "model.depth=4").out
    assert "not the published set-up: model.depth=4" in out


def test_describe_counts_the_operations_of_a_linear_model_exactly(runner):
    shape = ("data.lookback=50", "data.horizon=20", "data.batch_size=4")
    out = runner("mode=describe", "model=linear", "data=electricity", *shape).out
    assert f"{2 * 50 * 20 * 321 / 1e3:.2f} k" in row(out, "FLOPs")
    assert f"{50 * 20 * 321 / 1e3:.2f} k" in row(out, "MACs")


@pytest.mark.parametrize("variates", [1, 7])
def test_operations_of_a_linear_model_are_two_per_weight_and_variate(variates):
    task = Forecast(Linear(24, 12, variates))
    data = {"lookback": 24, "horizon": 12, "variates": variates, "marks": 0}
    assert forward_cost(task, data) == (2 * 24 * 12 * variates, set())
    assert forward_cost(task, data, batch=3)[0] == 3 * 2 * 24 * 12 * variates


def test_describe_names_the_kernel_of_each_op_that_the_model_calls(runner):
    out = runner("mode=describe", "kernel=reference").out
    assert "reference" in row(out, "kernel of attention")
    assert "selective_scan" not in out
    assert "torch" in row(runner("mode=describe", "model=s_mamba").out, "kernel of selective_scan")


def test_activations_grow_with_the_batch(runner):
    def mebibytes(batch: int) -> float:
        line = row(runner("mode=describe", f"data.batch_size={batch}").out, "activations kept")
        return float(line.split("MiB")[0].split()[-1])

    assert mebibytes(64) == pytest.approx(2 * mebibytes(32), rel=0.05)


def test_catalog_lists_every_preset_with_its_figures_and_claim(runner):
    out = runner("mode=catalog").out
    names = options("preset")
    assert len(names) > 30
    assert {line.split()[0] for line in out.splitlines() if "  task=ts_" in line} == set(names)
    first = out.partition("\nitransformer/")[0]
    assert "mse 0.386, mae 0.405" in first and "claim: inverting helps" in first
    assert "tags: task forecasting, positions timestamp, attention full, architecture inverted" in first


@pytest.fixture
def few_presets(monkeypatch):
    """Composing every preset takes seconds."""
    few = ["itransformer", "ltsf_linear", "s_mamba", "s_mamba/etth1"]
    monkeypatch.setattr("engine.catalog.options", lambda group: few)


def test_catalog_lists_only_the_presets_that_have_every_wanted_tag(runner, few_presets):
    out = runner("mode=catalog", "tags=[inverted,state-space]").out
    assert {line.split()[0] for line in out.splitlines() if "task=" in line} == {"s_mamba", "s_mamba/etth1"}


def test_a_tag_that_no_preset_has_is_refused_with_the_nearest(runner, few_presets):
    outcome = runner("mode=catalog", "tags=forcasting")
    assert outcome.code == 2 and outcome.line.endswith("no preset has this tag; did you mean forecasting?")


def test_a_strict_kernel_that_does_not_run_here_is_refused_in_one_line(runner, monkeypatch):
    from kernels import registry

    monkeypatch.delitem(registry.backends("selective_scan")[0], "triton", raising=False)
    for mode in ("describe", "fit"):
        outcome = runner(
            f"mode={mode}", "model=s_mamba", "kernel.selective_scan=triton", "kernel.strict=true", "logger=none"
        )
        assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome.err
        assert "kernel.selective_scan=triton" in outcome.err and "kernel.strict=false" in outcome.err

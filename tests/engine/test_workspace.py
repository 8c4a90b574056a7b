"""mode=workspace: the panels of a task's W&B workspace, built, serialised and sent to a server on 127.0.0.1."""

import json
import sys
from importlib.util import find_spec

import pytest
from wandb_server import serving

from tasks.ts_forecast.task import Forecast

pytestmark = pytest.mark.skipif(find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed")


@pytest.fixture
def spec(runner, tmp_path) -> dict:
    """The specification of the forecasting task's workspace, from the file that the mode writes."""
    outcome = runner("mode=workspace", "output=workspace.json")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["workspace.json"]
    return json.loads((tmp_path / "workspace.json").read_text())["section"]


def panels(spec: dict) -> dict[str, list[dict]]:
    """The panels of each section."""
    return {section["name"]: section["panels"] for section in spec["panelBankConfig"]["sections"]}


def metrics(panel: dict) -> list[str]:
    """The metrics of a panel."""
    return panel["config"]["metrics"]


def test_the_validation_curves_begin_with_the_monitored_metric_over_the_training_steps(spec):
    curves = panels(spec)["Validation"]
    assert [metrics(panel) for panel in curves] == [["val/mse"], ["val/mae"]]
    assert all(panel["viewType"] == "Run History Line Plot" for panel in curves)
    assert all(panel["config"]["xAxis"] == "trainer/global_step" for panel in curves)


def test_training_shows_loss_and_learning_rate(spec):
    assert [metrics(panel) for panel in panels(spec)["Training"]] == [["train/loss"], ["lr"]]


def test_every_test_metric_has_bars(spec):
    bars = panels(spec)["Test"]
    assert [metrics(panel) for panel in bars] == [[name] for name in Forecast.logged if name.startswith("test/")]
    assert all(panel["viewType"] == "Bar Chart" for panel in bars)


def test_the_figures_are_shown_as_media(spec):
    media = panels(spec)["Figures"]
    assert [panel["config"]["mediaKeys"] for panel in media] == [
        ["figures/forecast"],
        ["figures/attention"],
        ["figures/loss"],
    ]


def test_runs_are_those_of_the_task_grouped_by_sweep_the_best_first(spec):
    (runs,) = spec["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == ("tags", "IN", ["ts_forecast"])
    (order,) = runs["sort"]["keys"]
    assert order == {"key": {"section": "summary", "name": "val/mse"}, "ascending": True}


def test_the_task_logs_what_it_says_it_logs(fitted):
    scores = {name for name in fitted.results["metrics"] if name.startswith("test/")}
    figures = {name.removesuffix(".png") for name in fitted.results["figures"]}
    with (fitted.dir / "metrics.csv").open() as file:
        curves = {name for name in file.readline().strip().split(",") if name.startswith("val/")}
    assert scores | figures | curves == {*Forecast.logged, "figures/loss"}


def test_the_workspace_is_written_to_the_server(runner, monkeypatch, tmp_path, spec):
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        outcome = runner("mode=workspace", "logger.wandb.project=mine", "logger.wandb.entity=us")
    assert outcome.code == 0, outcome.err
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("us", "mine", "runner ts_forecast")
    sent = panels(json.loads(view["spec"])["section"])
    assert {name: len(content) for name, content in sent.items()} == {
        name: len(content) for name, content in panels(spec).items()
    }
    assert server.url.removeprefix("http://") in outcome.out


def test_without_an_account_one_line_says_what_to_do(runner, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        outcome = runner("mode=workspace")
    assert outcome.code == 2 and "wandb login" in outcome.line and "output=" in outcome.line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_with_the_command_that_installs_it(runner, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    outcome = runner("mode=workspace")
    assert outcome.code == 2 and "pip install wandb-workspaces" in outcome.line

"""mode=report: what is read, the tables and their arithmetic, Markdown and CSV, hostile names, bad input."""

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path
from statistics import stdev

import pytest
import yaml
from command import ROOT, start
from report_folders import copy_run, sweep

from engine.fingerprint import code_hash
from engine.report.curves import MOST_POINTS, read_curves, thin
from engine.report.export import cell, plain
from engine.report.page import embed
from engine.report.read import flatten, is_inside, read_runs
from engine.report.tables import board, boards, is_lower

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs(fitted, tmp_path_factory) -> Path:
    return sweep(fitted, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def table(runs):
    [only] = boards(read_runs(runs)[0])
    return only


def page_data(page: Path) -> dict:
    """The JSON inside a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_a_real_run_is_read_whole(fitted):
    [record], skipped = read_runs(fitted.folder)
    results = fitted.results
    assert skipped == [] and record.name == str(fitted.dir.relative_to(fitted.folder))
    assert (record.task, record.model, record.data) == ("ts_forecast", "itransformer", "csv (series.csv)")
    assert (record.monitor, record.direction) == ("val/mse", "min")
    assert record.metrics == results["metrics"] and record.baselines == results["baselines"]
    assert record.params == results["params"]["total"] and record.memory_mb == results["peak_memory_mb"]
    assert record.train_seconds == results["seconds"]["train"] and record.code == code_hash()
    assert sorted(record.figures) == sorted(results["figures"])


def test_settings_are_those_of_a_yaml_parser(fitted):
    def walk(node, prefix=""):
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            elif not isinstance(value, dict | list):
                yield f"{prefix}{key}", value

    text = (fitted.dir / "config.yaml").read_text()
    found = flatten(text)
    for key, value in walk(yaml.safe_load(text)):
        assert yaml.safe_load(found[key]) == value, key
    assert found["data.split"] == "0.7,0.1,0.2"


def test_torn_and_foreign_files_are_counted_in_one_line(runner, fitted, tmp_path):
    copy_run(fitted, tmp_path / "outputs/good")
    for name, text in {
        "a": '{"status": "do',
        "b": "[1, 2]",
        "c": '{"status": "done"}',
        "d": "[" * 100_000,
        "e": "",
    }.items():
        (tmp_path / "outputs" / name).mkdir()
        (tmp_path / "outputs" / name / "results.json").write_text(text)
    (tmp_path / "outputs/f").mkdir()
    (tmp_path / "outputs/f/results.json").write_bytes(b"\xff\xfe{")
    outcome = runner("mode=report", "path=outputs")
    assert outcome.code == 0
    assert outcome.line == (
        "skipped 6 results.json that hold no run's results, the first: outputs/a/results.json (torn, or no JSON)"
    )
    assert outcome.out.startswith("1 run of 1 task: outputs/report.html")


def test_values_of_the_wrong_type_are_left_out(fitted, tmp_path):
    metrics = {"test/mse": "low", "test/mae": True, "val/mse": float("nan"), "test/mase": 10**400, "test/smape": 0.5}
    copy_run(
        fitted, tmp_path / "run", metrics=metrics, seconds=[1], params="many", versions=None, figures=[3, "../x.png"]
    )
    [record], skipped = read_runs(tmp_path)
    assert skipped == []
    assert record.metrics.keys() & metrics.keys() == {"test/smape"}
    assert record.train_seconds is record.params is record.code is None
    assert record.figures == []


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png", "a\\..\\x.png", "javascript:x.png", ""])
def test_figures_stay_inside_their_run(name):
    assert not is_inside(name)


def test_links_to_folders_are_not_followed(fitted, tmp_path):
    copy_run(fitted, tmp_path / "run")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(read_runs(tmp_path)[0]) == 1


def test_runs_stand_best_first_with_the_failed_last(table):
    assert [run.name for run in table.runs[:3]] == [f"ts_forecast/itransformer-1{seed}" for seed in range(3)]
    assert table.runs[-1].status == "failed"
    assert table.metrics[:2] == ["test/mse", "test/mae"] and table.primary == "test/mse"
    assert table.keys == ["optim.lr"]


def test_seeds_are_grouped_with_mean_and_sample_deviation(table):
    sizes = Counter(len(group.members) for group in table.groups)
    assert sizes == {3: 4, 1: 1}
    first = table.groups[0]
    assert first.mean["test/mse"] == pytest.approx(0.11)
    assert first.std["test/mse"] == pytest.approx(stdev([0.1, 0.11, 0.12]))
    assert table.groups[-1].counted == [] and table.groups[-1].mean == {}


def test_a_seed_run_twice_counts_once_and_the_newer_one(fitted, tmp_path):
    for age, score in ((100, 0.5), (0, 0.7)):
        target = copy_run(fitted, tmp_path / f"run-{age}", metrics={"test/mse": score})
        os.utime(target / "results.json", (1e9 - age, 1e9 - age))
    [group] = boards(read_runs(tmp_path)[0])[0].groups
    assert len(group.members) == 2 and len(group.counted) == 1
    assert group.mean["test/mse"] == 0.7 and "test/mse" not in group.std


def test_runs_whose_configs_differ_are_not_averaged(fitted, tmp_path):
    copy_run(fitted, tmp_path / "a", seed=0)
    copy_run(fitted, tmp_path / "b", seed=1, config={"patience: 3": "patience: 4"})
    assert len(boards(read_runs(tmp_path)[0])[0].groups) == 2


@pytest.mark.parametrize(
    ("metric", "lower"),
    [("test/mse", True), ("val/loss", True), ("test/mse_original", True), ("test/accuracy", False), ("test/f1", False)],
)
def test_direction_follows_the_name_where_no_run_states_it(metric, lower):
    assert is_lower(metric, []) is lower


def test_direction_follows_what_runs_state(fitted, tmp_path):
    stated = {"monitor": "val/score", "direction": "max"}
    for name, score in (("low", 0.1), ("high", 0.9)):
        copy_run(fitted, tmp_path / name, metrics={"test/score": score}, **stated)
    found = board("ts_forecast", read_runs(tmp_path)[0])
    assert found.primary == "test/score" and "test/score" not in found.lower
    assert [run.name for run in found.runs] == ["high", "low"]


def test_long_curves_are_thinned_without_losing_ends_or_spikes():
    values = [float(i % 7) for i in range(5000)]
    values[2345], values[3456] = 99.0, -99.0
    steps, thinned = thin(list(range(5000)), values)
    assert len(thinned) <= MOST_POINTS and steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 4999) and {99.0, -99.0} <= set(thinned)


def test_curves_are_those_of_metrics_csv(fitted, tmp_path):
    rows = list(csv.DictReader((fitted.dir / "metrics.csv").open()))
    found = read_curves(str(fitted.dir / "metrics.csv"), "val/mse")
    assert list(found)[:2] == ["val/mse", "train/loss"] and "lr" not in found
    assert found["train/loss"] == ([3.0], [float(rows[0]["train/loss"])])
    (tmp_path / "metrics.csv").write_text("step,x\n1,nan\n2\nthree,4\n5,6\n")
    assert read_curves(str(tmp_path / "metrics.csv"), None) == {"x": ([5.0], [6.0])}
    assert read_curves(str(tmp_path / "none.csv"), None) == {}


def test_csv_has_a_row_per_run_with_published_figure_and_difference(runner, runs, tmp_path):
    assert runner("mode=report", f"path={runs}", f"output={tmp_path / 'all.html'}").code == 0
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert len(rows) == 13
    [second] = [row for row in rows if row["run"] == "ts_forecast/itransformer-11"]
    assert float(second["test/mse"]) == 0.11 and float(second["published test/mse"]) == 0.1
    assert float(second["difference % test/mse"]) == pytest.approx(10)
    assert second["optim.lr"] == "0.001" and second["seed"] == "1" and second["changed"] == "optim.lr=0.001"
    [failed] = [row for row in rows if row["status"] == "failed"]
    assert failed["error"] == "no memory left" and failed["other code"] == "True" and failed["test/mse"] == ""


def test_markdown_has_a_row_per_set_up_and_the_published_table(runner, runs, tmp_path):
    assert runner("mode=report", f"path={runs}", f"output={tmp_path}").code == 0
    text = (tmp_path / "report.md").read_text()
    assert "13 runs: 12 done, 1 failed." in text
    assert "| itransformer | csv (series.csv) | paper/row | optim.lr=0.001 | 3 | 0.11 ± 0.01 | 0.2 ± 0 |" in text
    published = text.partition("### Ours beside published")[2]
    assert "| 0.11 ± 0.01 | 3 | 0.1 | +10.0 % | not the published set-up: optim.lr=0.001 |" in published
    widths = {line.replace("\\|", "").count("|") for line in published.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_cells_cannot_end_a_table_or_start_markup_or_a_formula():
    assert cell("a|b\n<b>`x`") == "a\\|b &lt;b&gt;\\`x\\`"
    assert plain("=HYPERLINK(1)") == "'=HYPERLINK(1)" and plain("-0.5") == -0.5 and plain("word") == "word"


def test_data_in_the_page_holds_no_markup(runner, fitted, tmp_path):
    target = tmp_path / "outputs" / "<img src=x onerror=alert(1)>"
    copy_run(fitted, target, choices={"model": HOSTILE}, overrides=[HOSTILE, "a=<!--<script>"], error=HOSTILE)
    assert runner("mode=report", "path=outputs").code == 0
    text = (tmp_path / "outputs/report.html").read_text()
    assert "<img" not in text and text.count("</script>") == 2 and "<!--" not in text
    [run] = page_data(tmp_path / "outputs/report.html")["tasks"][0]["runs"]
    assert run["model"] == HOSTILE and run["url"] == "%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E"


def test_json_for_the_page_is_strict():
    assert embed({"</script>": "<&>"}) == r'{"\u003c/script\u003e":"\u003c\u0026\u003e"}'
    with pytest.raises(ValueError):
        embed(float("nan"))


def test_links_are_relative_to_the_page(runner, fitted, tmp_path):
    copy_run(fitted, tmp_path / "outputs/a b/run")
    (tmp_path / "pages").mkdir()
    assert runner("mode=report", "path=outputs", "output=pages/x.html").code == 0
    data = page_data(tmp_path / "pages/x.html")
    assert data["tasks"][0]["runs"][0]["url"] == "../outputs/a%20b/run"
    assert {p.name for p in (tmp_path / "pages").iterdir()} == {"x.html", "x.md", "x.csv"}


def test_seed_zero_and_zero_parameters_are_values(runner, fitted, tmp_path):
    copy_run(fitted, tmp_path / "outputs/run", params={"total": 0}, flops=0)
    assert runner("mode=report", "path=outputs").code == 0
    [run] = page_data(tmp_path / "outputs/report.html")["tasks"][0]["runs"]
    assert (run["seed"], run["params"], run["flops"]) == (0, 0, 0) and "stale" not in run


def test_a_report_leaves_nothing_but_its_three_files(runner, fitted, tmp_path):
    copy_run(fitted, tmp_path / "runs/one")
    assert runner("mode=report", "path=runs").code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"one", "report.html", "report.md", "report.csv"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "mode=report needs path=<path>"),
        (("path=nowhere",), "path=nowhere: no such folder"),
        (("path=file.txt",), "path=file.txt: a file, not a folder of runs"),
        (("path=empty",), "path=empty: no run below it"),
        (("path=[empty,b]",), "expected one path"),
        (("path=empty", "output=page.pdf"), "output=page.pdf: name an .html file"),
        (("path=empty", "output=no/page.html"), "output=no/page.html: the folder no does not exist"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(runner, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    outcome = runner("mode=report", *arguments)
    assert outcome.code == 2 and message in outcome.line
    assert {p.name for p in tmp_path.iterdir()} == {"empty", "file.txt"} and not list((tmp_path / "empty").iterdir())


def test_an_output_that_cannot_be_written_is_said_in_one_line(runner, fitted, tmp_path):
    copy_run(fitted, tmp_path / "outputs/run")
    (tmp_path / "outputs/report.md").mkdir()
    outcome = runner("mode=report", "path=outputs")
    assert outcome.code == 2 and "outputs/report.md: cannot write the report" in outcome.line
    assert not list((tmp_path / "outputs").glob(".*"))


def test_nothing_heavy_is_imported(fitted, tmp_path):
    copy_run(fitted, tmp_path / "outputs/run")
    process = start(tmp_path, "mode=report", "path=outputs", PYTHONPROFILEIMPORTTIME="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.splitlines() if "|" in line}
    assert "omegaconf" in imported
    assert not imported & {"torch", "lightning", "pandas", "numpy", "matplotlib", "wandb"}


def test_the_install_carries_what_the_page_is_made_of():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"]["engine.report"] == ["assets/*"]

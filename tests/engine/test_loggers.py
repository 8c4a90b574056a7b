"""CSV, TensorBoard and MLflow beside W&B: what each holds of a run, read back with its own reader."""

import csv
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from command import call, start
from omegaconf import OmegaConf

MODEL = ("model=linear", "trainer.max_steps=4", "trainer.log_every_n_steps=1")
LOGGERS = ["csv", "tensorboard", "mlflow"]
HAS_MLFLOW = find_spec("mlflow") is not None and find_spec("sqlalchemy") is not None
needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
needs_mlflow = pytest.mark.skipif(not HAS_MLFLOW, reason="mlflow, or its SQLite store, is not installed")


@pytest.fixture(scope="module")
def untracked(data_args) -> list[str]:
    """The small run of this file, without a choice of logger."""
    return [argument for argument in data_args if argument != "logger=none"] + list(MODEL)


@pytest.fixture(scope="module")
def logged(tmp_path_factory, untracked):
    """A run with every logger that is installed, W&B apart."""
    absent = {"tensorboard"} - {n for n in LOGGERS if find_spec(n)} | (set() if HAS_MLFLOW else {"mlflow"})
    chosen = ",".join(name for name in LOGGERS if name not in absent)
    outcome = call(tmp_path_factory.mktemp("logged"), *untracked, f"logger=[{chosen}]")
    assert outcome.code == 0, outcome.err
    return outcome


def scores_of(outcome) -> dict[str, float]:
    """The test metrics of results.json."""
    return {k: pytest.approx(v) for k, v in outcome.results["metrics"].items() if k.startswith("test/")}


def rows_of_csv(outcome) -> list[dict[str, float]]:
    """The rows of csv/metrics.csv without empty cells."""
    with (outcome.dir / "csv" / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def events(logged):
    """TensorBoard's own reader on the run's event files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(logged.dir / "tensorboard"), size_guidance={"images": 0})
    return found.Reload()


@pytest.fixture(scope="module")
def store(logged):
    """(client, the only run) of the MLflow store."""
    if not HAS_MLFLOW:
        pytest.skip("mlflow, or its SQLite store, is not installed")
    return only_run(logged)


def mlflow_client(folder):
    """MLflow's own reader on the store that commands in a folder left."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")


def only_run(outcome):
    """(client, the only run) of the MLflow store that a command left."""
    client = mlflow_client(outcome.folder)
    (run,) = client.search_runs([client.get_experiment_by_name("runner").experiment_id])
    return client, run


def test_each_logger_fills_its_own_key_so_that_they_stand_together(runner):
    cfg = OmegaConf.create(runner("logger=[none,csv,mlflow,wandb]", "--cfg", "job").out)
    assert set(cfg.logger) == {"csv", "mlflow", "wandb", "offline"}
    assert OmegaConf.create(runner("logger=none", "--cfg", "job").out).logger == {}


def test_loggers_do_not_change_the_fingerprint(runner):
    names = {
        runner(f"logger={name}", "-c", "hydra", "-p", "hydra.run.dir").out for name in ("none", "wandb", "[csv,mlflow]")
    }
    assert len(names) == 1


def test_csv_has_the_loss_of_every_logged_step_the_validation_and_the_test(logged):
    rows = rows_of_csv(logged)
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["val/mse"] for row in rows if "val/mse" in row] == [pytest.approx(logged.results["metrics"]["val/mse"])]
    assert {k: v for row in rows for k, v in row.items() if k.startswith("test/")} == scores_of(logged)


def test_csv_has_the_settings_by_their_dotted_names(logged):
    settings = yaml.safe_load((logged.dir / "csv" / "hparams.yaml").read_text())
    assert (settings["data.horizon"], settings["optim.lr"]) == (12, 0.001)
    assert settings["fingerprint"] == logged.results["fingerprint"]
    assert not [key for key in settings if key.startswith(("logger", "hydra"))]


def test_tensorboard_has_the_loss_of_every_logged_step_the_validation_and_the_test(logged, events):
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("val/mse")] == [pytest.approx(logged.results["metrics"]["val/mse"])]
    scores = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"] if tag.startswith("test/")}
    assert scores == scores_of(logged)


def test_tensorboard_has_the_settings_and_names_the_metrics_to_compare_them_by(events):
    from tensorboard.plugins.hparams import plugin_data_pb2

    contents = events.summary_metadata
    read = plugin_data_pb2.HParamsPluginData.FromString
    settings = read(contents["_hparams_/session_start_info"].plugin_data.content).session_start_info.hparams
    assert settings["data.horizon"].number_value == 12 and settings["task.loss"].string_value == "mse"
    experiment = read(contents["_hparams_/experiment"].plugin_data.content).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["val/mse", "test/mse"]


def test_tensorboard_has_every_figure_as_an_image(logged, events):
    drawn = {name.removesuffix(".png") for name in logged.results["figures"]}
    assert set(events.Tags()["images"]) == drawn and len(drawn) >= 2
    assert all(events.Images(tag)[0].width > 100 for tag in drawn)


def test_mlflow_has_the_loss_of_every_logged_step_the_validation_and_the_test(logged, store):
    client, run = store
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3, 4]
    assert run.data.metrics["val/mse"] == pytest.approx(logged.results["metrics"]["val/mse"])
    assert {k: v for k, v in run.data.metrics.items() if k.startswith("test/")} == scores_of(logged)


def test_mlflow_has_settings_name_and_tags(logged, store):
    run = store[1]
    assert run.data.params["data.horizon"] == "12"
    assert run.data.params["fingerprint"] == logged.results["fingerprint"]
    assert run.info.run_name == logged.dir.name and run.info.status == "FINISHED"
    assert (run.data.tags["task"], run.data.tags["model"], run.data.tags["mode"]) == ("ts_forecast", "linear", "fit")


def test_mlflow_has_figures_config_and_results_as_artifacts(logged, store):
    client, run = store
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"figures", "config.yaml", "results.json"}
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == set(logged.results["figures"])


@needs_mlflow
def test_mlflow_marks_a_diverged_run_as_failed(runner, untracked):
    outcome = runner(*untracked, "logger=mlflow", "optim.lr=1e30", "trainer.max_steps=20")
    assert outcome.code == 3, outcome.err
    assert only_run(outcome)[1].info.status == "FAILED"


@needs_mlflow
def test_mlflow_runs_that_start_together_share_one_new_store(tmp_path, untracked):
    started = [start(tmp_path, *untracked, "logger=mlflow", f"seed={seed}") for seed in (1, 2)]
    for process in started:
        assert process.communicate(timeout=240) and process.returncode == 0
    client = mlflow_client(tmp_path)
    experiment = client.get_experiment_by_name("runner").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED", "FINISHED"]


def test_mlflow_goes_where_its_own_environment_variable_says(runner, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    cfg = OmegaConf.create(runner("logger=mlflow", "--cfg", "job", "--resolve").out)
    assert cfg.logger.mlflow.tracking_uri == "sqlite:///elsewhere.db"


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_a_logger_whose_package_is_missing_is_told_before_anything_is_written(
    runner, tmp_path, monkeypatch, untracked, name, package
):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    outcome = runner(*untracked, f"logger=[csv,{name}]")
    assert outcome.code == 2 and package in outcome.line and f"pip install {name}" in outcome.line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_stops_no_mode_that_logs_nothing(runner, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert runner("mode=describe", "model=linear", "logger=mlflow").code == 0


def test_an_unknown_logger_is_refused(runner, tmp_path, untracked):
    outcome = runner(*untracked, "+logger.tensorbord={}")
    assert outcome.code == 2 and "did you mean tensorboard" in outcome.line
    assert list(tmp_path.iterdir()) == []


def test_wandb_online_without_an_account_is_told_in_one_line_and_leaves_nothing(
    runner, tmp_path, monkeypatch, untracked
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    outcome = runner(*untracked, "logger=[csv,wandb]", "logger.offline=false")
    assert outcome.code == 2 and "wandb login" in outcome.err and "logger=none" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_made_with_several_loggers_is_tested_with_the_commands_own(runner, tmp_path, logged):
    recorded = torch.load(logged.dir / "best.ckpt", weights_only=True)["runner"]
    assert "csv" in recorded["config"]["logger"]
    outcome = runner("mode=test", f"ckpt={logged.dir / 'best.ckpt'}", "logger=[csv]")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in outcome.dir.iterdir()} >= {"csv", "results.json"}
    assert not list(tmp_path.rglob("tensorboard")) and not list(tmp_path.rglob("mlflow*"))

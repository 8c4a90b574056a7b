"""W&B: the offline file of a run, read back."""

import json

import pytest
from command import call
from wandb_file import records, values


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, data_args):
    """One job of a sweep over a preset, tracked: (outcome, records by kind)."""
    folder = tmp_path_factory.mktemp("tracked")
    arguments = [a for a in data_args if a != "logger=none"]
    base = ["-m", "preset=ltsf_linear", "model=linear", "trainer.max_steps=4", "trainer.log_every_n_steps=1"]
    outcome = call(folder, *base, *arguments)
    assert outcome.code == 0, outcome.err
    files = list(outcome.dir.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    kinds = {}
    for record in records(files[0]):
        kind = record.WhichOneof("record_type")
        kinds.setdefault(kind, []).append(getattr(record, kind))
    return outcome, kinds


def test_wandb_writes_offline_into_the_run_directory(tracked):
    outcome, kinds = tracked
    assert len(list((outcome.dir / "wandb").glob("offline-run-*"))) == 1
    assert kinds["run"][0].project == "runner"
    assert kinds["run"][0].display_name == outcome.dir.name
    assert "exit" in kinds and kinds["exit"][0].exit_code == 0


def test_wandb_has_the_resolved_config_and_the_fingerprint(tracked):
    outcome, kinds = tracked
    config = values(kinds["run"][0].config.update)
    assert config["fingerprint"] == outcome.results["fingerprint"]
    assert (config["optim"]["lr"], config["data"]["horizon"], config["model"]["lookback"]) == (0.005, 12, 24)
    assert config["seed"] == 2021


def test_wandb_groups_by_sweep_and_marks_mode_task_model_and_preset(tracked):
    run = tracked[1]["run"][0]
    assert run.run_group
    assert run.job_type == "fit"
    assert set(run.tags) == {"ts_forecast", "linear", "ltsf_linear"}


def test_wandb_summarises_the_monitored_metric_by_its_best(tracked):
    metrics = {metric.name or metric.glob_name: metric for metric in tracked[1]["metric"]}
    best = metrics["val/mse"]
    assert best.summary.min and not best.summary.max
    assert best.step_metric == "trainer/global_step"
    assert metrics["train/*"].step_metric == "trainer/global_step"


def test_wandb_history_has_the_loss_of_every_logged_step_and_the_validation(tracked):
    outcome, kinds = tracked
    history = [values(row.item) for row in kinds["history"]]
    losses = {row["trainer/global_step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert sorted(losses) == [1, 2, 3, 4]
    assert all(isinstance(loss, float) and loss > 0 for loss in losses.values())
    validations = [row["val/mse"] for row in history if "val/mse" in row]
    assert validations == [pytest.approx(outcome.results["metrics"]["val/mse"])]


def test_wandb_summary_has_the_test_metrics(tracked):
    outcome, kinds = tracked
    summary = {}
    for update in kinds["summary"]:
        summary |= values(update.update)
    for name, value in outcome.results["metrics"].items():
        assert summary[name] == pytest.approx(value), name
    assert summary["status"] == "done"


def test_wandb_has_every_figure_as_media(tracked):
    outcome, kinds = tracked
    logged = {key for row in kinds["history"] for key in values(row.item) if key.startswith("figures/")}
    for name in outcome.results["figures"]:
        key = name.removesuffix(".png")
        assert f"{key}/_type" in logged
    paths = [file.path for group in kinds["files"] for file in group.files]
    assert sum(path.endswith(".png") for path in paths) == len(outcome.results["figures"]) >= 2


def test_wandb_has_checkpoint_and_predictions_as_artifacts(tracked):
    outcome, kinds = tracked
    found = {artifact.type: artifact for artifact in kinds["artifact"]}
    assert found.keys() == {"model", "predictions"}
    assert [entry.path for entry in found["model"].manifest.contents] == ["best.ckpt"]
    assert json.loads(found["model"].metadata)["test/mse"] == outcome.results["metrics"]["test/mse"]
    assert [entry.path for entry in found["predictions"].manifest.contents] == ["predictions.table.json"]


def test_no_tracker_writes_no_tracker_files(fitted):
    assert not list(fitted.dir.rglob("*wandb*"))

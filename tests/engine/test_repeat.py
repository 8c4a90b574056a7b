"""Same command, same numbers; what names a run; what is done again and what is not."""

import json
import os

import pytest
import torch
from command import Outcome, call, process_state, spawn
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from small_series import write_series

from engine import CONF
from engine.resolvers import register


def tensors(outcome: Outcome, name: str) -> dict[str, bytes]:
    """The bytes of every weight and of every tensor of the optimiser in a checkpoint."""
    found = torch.load(outcome.dir / name, weights_only=True)
    optimizer = found["optimizer_states"][0]["state"]
    moments = {f"{i}.{k}": v for i, state in optimizer.items() for k, v in state.items() if torch.is_tensor(v)}
    return {key: tensor.numpy().tobytes() for key, tensor in (found["state_dict"] | moments).items()}


def test_the_same_command_gives_byte_identical_weights_and_equal_metrics(fitted, tmp_path, tiny):
    again = spawn(tmp_path, *tiny)
    assert again.code == 0, again.err
    for name in ("best.ckpt", "last.ckpt"):
        assert tensors(again, name) == tensors(fitted, name)
    for key in ("metrics", "baselines", "details", "fingerprint"):
        assert again.results[key] == fitted.results[key]


def test_another_seed_gives_other_weights_in_another_directory(fitted, runner, tiny):
    other = runner(*tiny, "seed=1")
    ours, theirs = tensors(fitted, "last.ckpt"), tensors(other, "last.ckpt")
    assert ours.keys() == theirs.keys() and ours != theirs
    assert other.results["fingerprint"] != fitted.results["fingerprint"]


def name_of(folder, *arguments: str) -> str:
    """The run directory's name, without running."""
    with process_state(), initialize_config_dir(str(CONF), version_base="1.3"):
        os.chdir(folder)
        register()
        cfg = compose("config", overrides=list(arguments), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg.hydra.run.dir


def test_the_directory_is_named_after_task_model_and_fingerprint(tmp_path, tiny, fitted):
    name = name_of(tmp_path, *tiny)
    assert name == f"outputs/ts_forecast/itransformer-{fitted.results['fingerprint']}"


@pytest.mark.parametrize(
    "argument", ["logger=wandb", "output=x.csv", "data.root=/elsewhere", "debug=true", "rerun=always", "retries=5"]
)
def test_what_changes_no_number_does_not_change_the_name(tmp_path, tiny, argument):
    same = [a for a in tiny if a.split("=")[0] != argument.split("=")[0]]
    assert name_of(tmp_path, *same, argument) == name_of(tmp_path, *tiny)


@pytest.mark.parametrize(
    "argument", ["optim.lr=0.002", "seed=1", "data.horizon=13", "model/mixer=none", "task.loss=mae"]
)
def test_what_changes_numbers_changes_the_name(tmp_path, tiny, argument):
    rest = [a for a in tiny if a.split("=")[0] != argument.split("=")[0]]
    assert name_of(tmp_path, *rest, argument) != name_of(tmp_path, *tiny)


def test_another_content_of_the_same_data_file_changes_the_name(tmp_path):
    path = write_series(tmp_path / "mine.csv")
    arguments = ("data=csv", f"data.path={path}", "data.variates=3")
    before = name_of(tmp_path, *arguments)
    write_series(path, rows=239)
    assert name_of(tmp_path, *arguments) != before


def test_a_finished_run_started_again_goes_beside_the_old_one(runner, data_args):
    first, second = (runner(*data_args, "model=last_value") for _ in range(2))
    folders = sorted((first.folder / "outputs" / "ts_forecast").iterdir())
    assert [folder.name for folder in folders] == [folders[0].name, f"{folders[0].name}-2"]
    assert second.code == 0


def test_an_unfinished_run_started_again_keeps_its_directory(tmp_path, data_args):
    name = name_of(tmp_path, *data_args, "model=last_value")
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"status": "interrupted"}))
    assert name_of(tmp_path, *data_args, "model=last_value") == name
    (folder / "results.json").write_text(json.dumps({"status": "done"}))
    assert name_of(tmp_path, *data_args, "model=last_value") == f"{name}-2"


def test_a_sweep_skips_finished_jobs_and_returns_their_metric(tmp_path, data_args, monkeypatch):
    returned, multirun = [], Hydra.multirun

    def remember(*args, **kwargs):
        returned.append([job.return_value for jobs in multirun(*args, **kwargs) for job in jobs])

    monkeypatch.setattr(Hydra, "multirun", remember)
    command = ("-m", *data_args, "model=linear,last_value", "trainer.max_steps=1")
    first = call(tmp_path, *command)
    assert first.code == 0, first.err
    files = sorted(tmp_path.glob("outputs/ts_forecast/*/results.json"))
    before = [path.stat().st_mtime_ns for path in files]
    second = call(tmp_path, *command)
    assert len(files) == 2
    assert [path.stat().st_mtime_ns for path in files] == before
    assert second.err.count("finished before, skipped") == 2
    stored = {json.loads(path.read_text())["objective"] for path in files}
    assert returned[0] == returned[1] and set(returned[1]) == stored

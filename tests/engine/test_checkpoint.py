"""mode=test: a checkpoint scored again, and checkpoints that are not what they should be."""

import os
import pickle
from pathlib import Path

import pytest
import torch


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def refused(runner, tmp_path, *arguments: str) -> str:
    before = sorted(tmp_path.iterdir())
    outcome = runner("mode=test", "logger=none", "trainer=cpu", *arguments)
    assert outcome.code == 2, outcome
    assert sorted(tmp_path.iterdir()) == before
    return outcome.line


def altered(fitted, path: Path, change) -> Path:
    """A copy of the fitted checkpoint after `change(contents)`."""
    contents = torch.load(fitted.dir / "best.ckpt", weights_only=True)
    change(contents)
    torch.save(contents, path)
    return path


def test_a_checkpoint_gives_exactly_the_test_metrics_of_its_fit(runner, fitted):
    outcome = runner("mode=test", f"ckpt={fitted.dir / 'best.ckpt'}", "logger=none")
    assert outcome.code == 0, outcome.err
    scores = {k: v for k, v in fitted.results["metrics"].items() if k.startswith("test/")}
    assert outcome.results["metrics"] == scores
    assert outcome.results["mode"] == "test" and outcome.results["details"] == fitted.results["details"]


def test_values_on_the_command_line_win_over_the_checkpoints(runner, fitted):
    outcome = runner("mode=test", f"ckpt={fitted.dir / 'best.ckpt'}", "logger=none", "trainer.limit_test_batches=1")
    assert outcome.results["metrics"]["test/mse"] != fitted.results["metrics"]["test/mse"]


def test_a_checkpoint_of_another_model_is_refused(runner, tmp_path, fitted):
    line = refused(runner, tmp_path, "model=dlinear", f"ckpt={fitted.dir / 'best.ckpt'}")
    assert "another model" in line and "itransformer" in line and "dlinear" in line


def test_a_checkpoint_of_another_size_is_refused(runner, tmp_path, fitted):
    line = refused(runner, tmp_path, "model.d_model=32", f"ckpt={fitted.dir / 'best.ckpt'}")
    assert "shape" in line and "16" in line and "32" in line


def test_a_checkpoint_that_is_not_there_is_named_with_those_beside_it(runner, tmp_path, fitted):
    assert "best.ckpt" in refused(runner, tmp_path, f"ckpt={fitted.dir / 'bst.ckpt'}").partition("no such file")[2]
    assert "no such file" in refused(runner, tmp_path, "ckpt=nowhere/at/all.ckpt")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04torn", pickle.dumps({"state_dict": {}})])
def test_a_file_that_is_no_checkpoint_is_refused(runner, tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    assert f"ckpt={path}" in refused(runner, tmp_path, f"ckpt={path}")


def test_a_torn_checkpoint_is_refused(runner, tmp_path, fitted):
    path = tmp_path / "torn.ckpt"
    path.write_bytes((fitted.dir / "best.ckpt").read_bytes()[:-2000])
    assert "not a readable checkpoint" in refused(runner, tmp_path, f"ckpt={path}")


def test_a_checkpoint_of_another_program_is_refused(runner, tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1)}}, path)
    assert "not a checkpoint of runner" in refused(runner, tmp_path, f"ckpt={path}")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_opening_a_checkpoint_runs_no_code_that_it_brings(runner, tmp_path, how):
    path, marker = tmp_path / "x.ckpt", tmp_path / "marker"
    contents = {"state_dict": {}, "runner": Bomb(marker)}
    path.write_bytes(pickle.dumps(contents)) if how == "pickle" else torch.save(contents, path)
    assert "not a readable checkpoint" in refused(runner, tmp_path, f"ckpt={path}")
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "torch.nn.modules.module.os.system", "tasks.sources.urllib.request.urlretrieve"],
)
@pytest.mark.parametrize("place", ["model", "data", "optim", "method"])
def test_a_checkpoint_may_not_name_foreign_code(runner, tmp_path, fitted, target, place):
    def change(contents):
        contents["runner"]["config"][place] = {"x": {"_target_": target, "command": f"touch {tmp_path / 'marker'}"}}

    path = altered(fitted, tmp_path / "x.ckpt", change)
    line = refused(runner, tmp_path, f"ckpt={path}")
    assert target in line


@pytest.mark.parametrize("target", ["torch.nn.Linear", "torch.hub.load", "lightning.pytorch.Trainer"])
def test_a_checkpoints_model_must_be_a_model(runner, tmp_path, fitted, target):
    def change(contents):
        contents["runner"]["config"]["model"]["_target_"] = target

    refused(runner, tmp_path, f"ckpt={altered(fitted, tmp_path / 'x.ckpt', change)}")


@pytest.mark.parametrize("key", ["config", "choices"])
def test_a_checkpoint_without_its_config_is_refused(runner, tmp_path, fitted, key):
    path = altered(fitted, tmp_path / "x.ckpt", lambda contents: contents["runner"].pop(key))
    refused(runner, tmp_path, f"ckpt={path}")


def test_a_checkpoint_that_lacks_a_weight_is_refused(runner, tmp_path, fitted):
    path = altered(fitted, tmp_path / "x.ckpt", lambda contents: contents["state_dict"].popitem())
    assert "another model" in refused(runner, tmp_path, f"ckpt={path}")

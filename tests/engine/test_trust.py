"""Opening somebody's checkpoint runs none of their code, whatever stands in it.

Every attack here is a real one: it makes the folder `marker` if it succeeds.
"""

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from engine.build import make
from engine.errors import UserError
from engine.trust import check_targets, target_of
from tasks import sources

LINEAR = {"_target_": "models.linear.Linear", "lookback": 24, "horizon": 12, "variates": 3}
FOREIGN = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "importlib.import_module",
    "pickle.loads",
    "hydra.utils.instantiate",
    "engine.fit.fit",
    "runner.main",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load_inline",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.cli.instantiate_class",
    "lightning.pytorch.core.saving.pl_load",
    "lightning.pytorch.loggers.WandbLogger",
]
REACHABLE = [
    "models.linear.torch.os.system",
    "models.linear.torch.load",
    "models.linear.nn",
    "models.linear.nn.Linear",
    "models.itransformer.partial",
    "tasks.sources.os.system",
    "tasks.sources.download",
    "tasks.sources.Path",
    "tasks.task.torch.load",
    "tasks.schedules.Schedule",
    "kernels.registry.importlib.import_module",
    "torch.nn.Module.__init__.__globals__.os.system",
    "torch.nn.Module.__init__.__globals__",
    "torch.nn.modules.module.torch.load",
    "torch.nn.modules.module.OrderedDict",
    "torch.nn.Module.forward",
    "torch.nn.__builtins__",
    "torch.nn.modules.module._global_forward_hooks",
    "torch.nn.functional.relu",
    "torch.optim.optimizer.functools.partial",
    "torch.optim.Optimizer.__init__",
    "lightning.pytorch.callbacks.LambdaCallback.__init__.__globals__",
    "lightning.pytorch.callbacks.model_checkpoint.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.get_filesystem",
    "lightning.pytorch.strategies.ddp.subprocess.Popen",
]
LEGITIMATE = [
    "models.linear.Linear",
    "models.mixers.attention.Attention",
    "tasks.schedules.cosine",
    "tasks.ts_forecast.task.Forecast",
    "tasks.ts_forecast.data.ForecastData",
    "torch.nn.Linear",
    "torch.nn.modules.activation.GELU",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.StepLR",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.strategies.FSDPStrategy",
]


class Bomb:
    """Unpickling it makes the marker."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path) -> Path:
    """The folder that an attack makes if it succeeds."""
    return tmp_path / "marker"


def altered(fitted, path: Path, change) -> Path:
    """A copy of a good checkpoint after `change(recorded config)`."""
    contents = torch.load(fitted.dir / "best.ckpt", weights_only=True)
    change(contents["runner"]["config"])
    torch.save(contents, path)
    return path


def opened(runner, tmp_path, checkpoint: Path, mode: str, series_csv: Path):
    """What `mode` makes of a checkpoint."""
    files = [f"input={series_csv}", f"output={tmp_path / 'forecast.csv'}"] if mode == "predict" else []
    return runner(f"mode={mode}", "logger=none", f"ckpt={checkpoint}", *files)


@pytest.mark.parametrize("path", FOREIGN)
def test_code_outside_the_trusted_packages_is_refused(path):
    with pytest.raises(UserError, match="is not trusted"):
        target_of({"_target_": path})


@pytest.mark.parametrize("path", REACHABLE)
def test_what_is_only_reachable_through_a_trusted_package_is_refused(path):
    with pytest.raises(UserError, match="_target_"):
        target_of({"_target_": path})


@pytest.mark.parametrize("path", [["os.system"], {"a": "b"}, None, 3, os.system, "", ".", "models", "models."])
def test_a_target_that_is_no_dotted_name_is_refused(path):
    with pytest.raises(UserError, match="_target_"):
        target_of({"_target_": path})


@pytest.mark.parametrize("path", LEGITIMATE)
def test_building_blocks_are_trusted(path):
    assert callable(target_of({"_target_": path}))


def test_every_target_of_the_conf_tree_is_trusted():
    """Those of Hydra's own groups apart, which Hydra makes from the user's command and no checkpoint records."""
    from engine import CONF

    files = [path for path in CONF.rglob("*.yaml") if "hydra" not in path.relative_to(CONF).parts]
    targets = {line.split()[1] for p in files for line in p.read_text().splitlines() if "_target_:" in line}
    assert len(targets) > 15
    for target in targets:
        target_of({"_target_": target})


def test_a_module_beside_the_user_is_not_imported(tmp_path, monkeypatch, marker):
    traps(tmp_path, marker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("evil.Thing", "models.evil.Thing", "tasks.evil.Thing", "models.linear.evil.Thing"):
        with pytest.raises(UserError, match="_target_"):
            make({"_target_": path})
    assert not marker.exists()


def nested(attack: Any) -> dict[str, Any]:
    """A model's config with an attack in every kind of place."""
    return {
        "list": {**LINEAR, "extra": [1, [attack]]},
        "tuple": {**LINEAR, "extra": (attack,)},
        "partial": {**LINEAR, "_partial_": True, "extra": {"deep": attack}},
        "arguments": {**LINEAR, "_args_": [attack]},
        "not recursive": {**LINEAR, "_recursive_": False, "extra": attack},
    }


@pytest.mark.parametrize("place", nested(None))
@pytest.mark.parametrize("partial", [{}, {"_partial_": True}], ids=["called", "partial"])
def test_a_target_is_found_wherever_it_is_nested(marker, place, partial):
    attack = {"_target_": "os.mkdir", "path": str(marker), **partial}
    for check in (check_targets, make):
        with pytest.raises(UserError, match=r"os\.mkdir"):
            check(nested(attack)[place])
    assert not marker.exists()


INTERPOLATIONS = [
    "${oc.env:SECRET}",
    "${oc.decode:'{_target_: os.mkdir, path: MARKER}'}",
    "${oc.create:{_target_: os.mkdir, path: MARKER}}",
    "\\${oc.create:{_target_: os.mkdir, path: MARKER}}",
    "\\\\\\${oc.create:{_target_: os.mkdir, path: MARKER}}",
    "before ${oc.env:SECRET} after",
]


@pytest.mark.parametrize("text", INTERPOLATIONS)
def test_an_interpolation_is_not_evaluated_when_a_model_is_made(marker, text):
    text = text.replace("MARKER", str(marker))
    for place in nested(text).values():
        with pytest.raises(UserError, match="not interpolations"):
            make(place)
    assert not marker.exists()


@pytest.mark.parametrize("mode", ["test", "predict"])
@pytest.mark.parametrize("text", INTERPOLATIONS)
def test_an_interpolation_in_a_checkpoint_is_not_evaluated(
    runner, tmp_path, monkeypatch, fitted, series_csv, marker, text, mode
):
    monkeypatch.setenv("SECRET", "hunter2")

    def change(config):
        config["task"]["baselines"]["last_value"]["horizon"] = text.replace("MARKER", str(marker))

    path = altered(fitted, tmp_path / "x.ckpt", change)
    outcome = opened(runner, tmp_path, path, mode, series_csv)
    assert outcome.code == 2 and "not interpolations" in outcome.line and "hunter2" not in outcome.line
    assert not marker.exists() and not (tmp_path / "outputs").exists()


def traps(folder: Path, marker: Path) -> None:
    """Files that make the marker: a module, torch.hub's entry, a pickle."""
    (folder / "hubconf.py").write_text(f"import os\nos.mkdir({str(marker)!r})\ndef entry(): pass\n")
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Thing: pass\n")
    (folder / "bomb.pkl").write_bytes(pickle.dumps(Bomb(marker)))


def attacks(folder: Path) -> dict[str, dict[str, Any]]:
    """Targets that make `marker` in the folder if they are called."""
    marker, mkdir = folder / "marker", f"__import__('os').mkdir({str(folder / 'marker')!r})"
    return {
        "os.system": {"_target_": "os.system", "command": f"mkdir {marker}"},
        "builtins.eval": {"_target_": "builtins.eval", "_args_": [mkdir]},
        "evil.Thing": {"_target_": "evil.Thing"},
        "models.linear.torch.os.system": {"_target_": "models.linear.torch.os.system", "command": f"mkdir {marker}"},
        "__globals__": {"_target_": "torch.nn.Module.__init__.__globals__.get", "_args_": ["os"]},
        "torch.hub.load": {
            "_target_": "torch.hub.load",
            "repo_or_dir": str(folder),
            "model": "entry",
            "source": "local",
        },
        "instantiate_class": {
            "_target_": "lightning.pytorch.cli.instantiate_class",
            "args": [str(marker)],
            "init": {"class_path": "os.mkdir"},
        },
        "pl_load": {
            "_target_": "lightning.pytorch.core.saving.pl_load",
            "path_or_url": str(folder / "bomb.pkl"),
            "weights_only": False,
        },
    }


@pytest.mark.parametrize("mode", ["test", "predict"])
@pytest.mark.parametrize("name", attacks(Path()))
def test_a_checkpoint_with_a_hostile_target_is_refused(
    runner, tmp_path, monkeypatch, fitted, series_csv, marker, name, mode
):
    traps(tmp_path, marker)
    attack = attacks(tmp_path)[name]
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(config):
        config["task"]["baselines"]["extra"] = attack
        config["method"] = {"extra": attack}

    path = altered(fitted, tmp_path / "x.ckpt", change)
    before = sorted(tmp_path.iterdir())
    outcome = opened(runner, tmp_path, path, mode, series_csv)
    assert outcome.code == 2 and name in outcome.line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("mode", ["test", "predict"])
def test_a_checkpoint_that_unpickles_to_code_is_refused(runner, tmp_path, series_csv, marker, mode):
    torch.save({"state_dict": {}, "runner": {"config": Bomb(marker), "choices": {}}}, tmp_path / "x.ckpt")
    outcome = opened(runner, tmp_path, tmp_path / "x.ckpt", mode, series_csv)
    assert outcome.code == 2 and "not a readable checkpoint" in outcome.line
    assert not marker.exists()


@pytest.mark.parametrize("config", [[], {}, {"model": 3}, {"model": {}, "task": []}], ids=str)
def test_a_checkpoint_whose_config_has_another_shape_is_refused_in_one_line(runner, tmp_path, fitted, config):
    contents = torch.load(fitted.dir / "best.ckpt", weights_only=True)
    contents["runner"]["config"] = copy.deepcopy(config)
    torch.save(contents, tmp_path / "x.ckpt")
    outcome = runner("mode=test", "logger=none", f"ckpt={tmp_path / 'x.ckpt'}")
    assert outcome.code == 2 and "its config lacks" in outcome.line


def test_a_checkpoint_does_not_say_where_results_are_sent(runner, tmp_path, fitted):
    def change(config):
        config["logger"] = {"mlflow": {"tracking_uri": "http://127.0.0.1:9", "experiment": "theirs"}}

    path = altered(fitted, tmp_path / "x.ckpt", change)
    outcome = runner("mode=test", "logger=none", f"ckpt={path}")
    assert outcome.code == 0, outcome.err
    assert OmegaConf.load(outcome.dir / "config.yaml").logger == {}


@pytest.mark.parametrize("name", ["../escaped.csv", "/ABSOLUTE/escaped.csv", "a/../../escaped.csv"])
def test_a_download_does_not_leave_the_cache_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = name.replace("/ABSOLUTE", str(tmp_path))
    data = {"name": "x", "root": str(tmp_path), "source": {"files": [name], "urls": ["data:text/plain,boom"]}}
    with pytest.raises(ValueError, match="is outside"):
        sources.locate(data)
    assert not list(tmp_path.rglob("escaped.csv"))

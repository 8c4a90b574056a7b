"""From a config to live objects: kernels, model, methods, task, data."""

import inspect
from functools import partial
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf, open_dict
from torch import nn

import kernels
from engine.check import split_overrides
from engine.errors import UserError, user_errors
from engine.run import Run, log
from engine.trust import check_targets, target_of


def complete(run: Run) -> None:
    """Fills what a data config leaves to the user's own file (`data=csv`: the number of variates)."""
    with user_errors():
        data = OmegaConf.to_container(run.cfg.data, resolve=True)
        found = target_of(data).complete(data)
    with open_dict(run.cfg):
        for key, value in found.items():
            if value != data.get(key):
                run.cfg.data[key] = value


def make(config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Instantiates a plain config; what the constructor refuses becomes a UserError."""
    check_targets(config)
    with user_errors():
        try:
            return instantiate(config, *args, _convert_="all", **kwargs)
        except Exception as error:  # Hydra wraps what a constructor raises
            raise (error.__cause__ or error) from None


def build_model(run: Run, config: dict[str, Any]) -> nn.Module:
    """The model with its methods applied. Call inside `with torch.device("meta")` for a model without memory.

    Arguments that a preset sets for its own model or mixer are left out when the command line chooses one without them.
    """
    model_config = fitting(run, config["model"], "model")
    if "mixer" in model_config:
        model_config["mixer"] = fitting(run, model_config["mixer"], "model.mixer")
    model = make(model_config)
    for method in config["method"].values():
        model = make(method).apply(model)
    return model


def fitting(run: Run, config: dict[str, Any], key: str) -> dict[str, Any]:
    """The config without arguments that its target does not take: a preset's are left out, typed ones refused."""
    known = [name for name in inspect.signature(target_of(config)).parameters if name != "dim"]
    foreign = [name for name in config if name not in known and not name.startswith("_")]
    typed = set(split_overrides(run.overrides)[1])
    target = config["_target_"].rpartition(".")[2]
    for name in foreign:
        if f"{key}.{name}" in typed or not run.choices.get("preset"):
            raise UserError(f"{key}.{name}: {target} takes no {name}; it takes {', '.join(known)}")
    if foreign:
        log.info(f"{target} takes no {', '.join(foreign)}: the preset's values are left out")
    return {name: value for name, value in config.items() if name not in foreign}


def build_task(run: Run, config: dict[str, Any]) -> L.LightningModule:
    """Seeds everything, sets the kernels, and builds model and task."""
    L.seed_everything(config["seed"], verbose=False)
    with user_errors():
        kernels.configure(config["kernel"])
    optim = dict(config["optim"])
    schedule = make(optim.pop("schedule"))
    with user_errors():
        optimizer = partial(target_of(optim), **{k: v for k, v in optim.items() if k != "_target_"})
        optimizer([nn.Parameter(torch.zeros(1))])  # wrong settings surface here, not in the middle of a run
    model = build_model(run, config)
    baselines = usable(config["task"].get("baselines") or {})
    task = {k: v for k, v in config["task"].items() if k != "baselines"}
    return make(task, model=model, optimizer=optimizer, schedule=schedule, baselines=baselines)


def usable(baselines: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The baselines that this data set-up allows; the others are left out with a log line."""
    built = {}
    for name, config in baselines.items():
        try:
            built[name] = make(config)
        except UserError as error:
            log.info(f"baseline {name} is left out: {error}")
    return built


def build_data(config: dict[str, Any]) -> L.LightningDataModule:
    """The data, located, loaded, checked and split: data errors come before any training."""
    data = make(config["data"])
    with user_errors():
        data.prepare_data()
        data.setup("fit")
    return data

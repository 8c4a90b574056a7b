"""A checkpoint's config, with the command line's overrides on top."""

from typing import Any

from omegaconf import OmegaConf, open_dict

from engine.check import split_overrides
from engine.errors import UserError
from engine.run import Run
from engine.trust import check_targets

COMMAND = ("mode", "ckpt", "input", "output", "debug", "seed")
"""Keys that belong to this command, not to the run that made the checkpoint."""

GROUPS = ("task", "data", "model", "method", "kernel", "optim", "trainer")
"""What every recorded config holds."""


def restore(run: Run, contents: dict[str, Any]) -> None:
    """Replaces the run's config by the checkpoint's; groups and values that the command line names win.

    Raises:
        UserError: the command names another model than the checkpoint's, or the checkpoint's config is not one that
            runner wrote: it lacks a group, or names what `engine.trust` refuses.
    """
    recorded, choices = contents["runner"]["config"], contents["runner"]["choices"]
    if not isinstance(recorded, dict) or not all(isinstance(recorded.get(group), dict) for group in GROUPS):
        raise UserError(f"ckpt={run.cfg.ckpt}: its config lacks one of {', '.join(GROUPS)}")
    check_targets(recorded)
    named = {o.lstrip("+").split("=")[0] for o in run.overrides}
    if named & {"model", "model/mixer", "preset"} and run.cfg.model._target_ != recorded["model"]["_target_"]:
        raise UserError(
            f"ckpt={run.cfg.ckpt}: checkpoint of another model: it holds {choices['model']}, "
            f"the command names {run.choices['model']}; leave model= out"
        )
    cfg = OmegaConf.create(recorded)
    with open_dict(cfg):
        for group in ("data", "kernel", "trainer", "logger"):
            if group in named or group == "logger":  # a stranger's checkpoint does not say where results are sent
                cfg[group] = OmegaConf.to_container(run.cfg[group], resolve=True)
                choices = choices | {group: run.choices.get(group)}  # none for a list of options
        for key in (*split_overrides(run.overrides)[1], *COMMAND):
            OmegaConf.update(cfg, key, OmegaConf.select(run.cfg, key))
    run.cfg, run.choices = cfg, run.choices | choices

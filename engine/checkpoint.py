"""Checkpoints: the config goes in with the weights, and comes out without running anybody's code."""

from pathlib import Path
from typing import Any

import lightning as L
import torch

from engine.errors import UserError, nearest, one_line
from engine.fingerprint import code_hash
from engine.run import Run


class RecordConfig(L.Callback):
    """Writes the plain config, what of it left the published set-up, and the chosen options into every checkpoint."""

    def __init__(self, run: Run, figures: dict[str, Any] | None):
        config = run.plain()
        if figures:
            config["paper"]["changed"] = figures["changed"]
        choices = {group: choice for group, choice in run.choices.items() if not group.startswith("hydra/")}
        self.record = {"config": config, "choices": choices, "fingerprint": run.fingerprint, "code": code_hash()}

    def on_save_checkpoint(self, trainer: L.Trainer, task: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["runner"] = self.record


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's contents, tensors and plain values only.

    Raises:
        UserError: no such file, not a checkpoint, or not one of runner's.
    """
    path = Path(str(path))
    if not path.is_file():
        raise UserError(f"ckpt={path}: no such file; {beside(path)}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn, foreign or malicious file fails in many ways, none of which runs its code
        raise UserError(f"ckpt={path}: not a readable checkpoint ({one_line(error)[:120]})") from error
    recorded = contents.get("runner") if isinstance(contents, dict) else None
    if not isinstance(recorded, dict) or not {"config", "choices"} <= recorded.keys() or "state_dict" not in contents:
        raise UserError(f"ckpt={path}: not a checkpoint of runner (it holds no config)")
    return contents


def beside(path: Path) -> str:
    """The checkpoints that stand where the missing one was looked for."""
    folder = path if path.is_dir() else path.parent
    found = [str(p) for p in folder.glob("*.ckpt")] if folder.is_dir() else []
    return nearest(str(path), found) if found else f"there is no .ckpt file in {folder}"


def load_weights(task: torch.nn.Module, contents: dict[str, Any], path: str | Path) -> None:
    """Loads a checkpoint's weights; a module with `take_shapes(state)` first takes the shapes found in its data.

    Raises:
        UserError: the checkpoint belongs to another model or another size of it; names the first difference.
    """
    theirs = contents["state_dict"]
    for place, module in task.named_modules():
        if hasattr(module, "take_shapes"):
            prefix = f"{place}."
            module.take_shapes({k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)})
    ours = task.state_dict()
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in theirs or name not in ours:
            owner = "the checkpoint" if name in theirs else "this model"
            raise UserError(f"ckpt={path}: checkpoint of another model: only {owner} has {name.removeprefix('model.')}")
        if theirs[name].shape != ours[name].shape:
            there, here = tuple(theirs[name].shape), tuple(ours[name].shape)
            raise UserError(
                f"ckpt={path}: {name.removeprefix('model.')} has shape {there} there and {here} in this config"
            )
    task.load_state_dict(theirs)

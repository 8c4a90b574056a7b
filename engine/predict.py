"""mode=predict: a trained model on the user's own file."""

from pathlib import Path

from omegaconf import OmegaConf

from engine.build import build_task
from engine.checkpoint import load_weights, read_checkpoint
from engine.errors import UserError, user_errors
from engine.restore import restore
from engine.run import Run


def predict(run: Run) -> None:
    """Reads `input`, predicts with `ckpt`, writes `output`; the task says what these files hold.

    Raises:
        UserError: a file is missing or wrong, or the checkpoint cannot be used.
    """
    contents = read_checkpoint(run.cfg.ckpt)
    restore(run, contents)
    config = OmegaConf.to_container(run.cfg, resolve=True)
    source, target = Path(str(run.cfg.input)), Path(str(run.cfg.output))
    if not source.is_file():
        raise UserError(f"input={source}: no such file")
    if not target.parent.is_dir():
        raise UserError(f"output={target}: the folder {target.parent} does not exist")
    task = build_task(run, config)
    load_weights(task, contents, run.cfg.ckpt)
    task.on_load_checkpoint(contents)
    with user_errors():
        print(task.eval().predict_file(config["data"], source, target))

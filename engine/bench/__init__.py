"""mode=bench: the ops of `kernels`, or a whole model, over a grid of shapes: right first, then how fast.

Each backend is compared with the reference before it is timed; one that computes something else gets no time. Times
are medians, by events on a GPU. Speed-ups are over the strongest public implementation that is installed and runs.
"""

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch

import kernels
from engine.bench.ceiling import Ceiling, ceiling
from engine.bench.model import time_model
from engine.bench.ops import Row, time_op
from engine.bench.show import draw, markdown, print_table
from engine.errors import UserError, nearest, user_errors
from engine.run import Run, log
from kernels.registry import ops

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = {"laptop": "CPU", "paper": "GPU"}


def bench(run: Run) -> None:
    """Times what `bench.what` names; writes bench.json, bench.md and bench.png into `output` (default outputs/bench).

    Raises:
        UserError: an unknown op, shape set or dtype; a folder that cannot be written.
    """
    settings, config = run.plain()["bench"], run.plain()
    device = torch.device("cuda" if torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu" else "cpu")
    dtype = choice("bench.dtype", settings["dtype"] or ("bfloat16" if device.type == "cuda" else "float32"), DTYPES)
    which = choice("bench.shapes", settings["shapes"] or ("paper" if device.type == "cuda" else "laptop"), SHAPES)
    names = wanted(settings["what"])
    if settings["repeats"] < 1:
        raise UserError(f"bench.repeats={settings['repeats']}: expected a whole number, 1 or more")
    folder = Path(str(run.cfg.output or "outputs/bench"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={folder}: {error.strerror}") from None
    with user_errors():
        kernels.configure(config["kernel"] | {"measure": False})
    limits = ceiling(device, dtype)
    log.info(f"{limits.device}, {str(dtype).removeprefix('torch.')}: {limits.words()}")
    rows: list[Row] = []
    if names == ["model"]:
        rows = time_model(run, config, device, settings["batch"], settings["repeats"])
    for name in names if names != ["model"] else ():
        rows += time_op(name, which, device, dtype, config["kernel"].get(name, "auto"), settings["repeats"])
    write(folder, rows, limits)


def choice(key: str, value: Any, known: dict[str, Any]) -> Any:
    """What a name stands for."""
    if value not in known:
        raise UserError(f"{key}={value}: {nearest(str(value), known)}")
    return known[value]


def wanted(what: Any) -> list[str]:
    """`["model"]`, or names of ops."""
    names = list(ops()) if what is None else [what] if isinstance(what, str) else list(what)
    for name in names:
        if name not in ops() and names != ["model"]:
            raise UserError(f"bench.what={name}: no such op; {nearest(str(name), [*ops(), 'model'])}")
    return names


def write(folder: Path, rows: list[Row], limits: Ceiling) -> None:
    """The table on the terminal, as Markdown and JSON, and the plot."""
    print_table(rows, limits)
    made = {"date": str(date.today()), "ceiling": dataclasses.asdict(limits)}
    (folder / "bench.json").write_text(
        json.dumps(made | {"rows": [dataclasses.asdict(row) for row in rows]}, indent=1) + "\n"
    )
    (folder / "bench.md").write_text(markdown(rows, limits))
    draw(rows, limits, folder / "bench.png")
    print(f"{len(rows)} rows: {folder / 'bench.md'} (also .json and .png)")

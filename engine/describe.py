"""mode=describe: what a set-up costs, from the config alone; no data, no memory for weights."""

from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from engine.build import build_task, complete
from engine.fit import model_facts
from engine.flops import of_torch
from engine.published import published
from engine.run import Run


def describe(run: Run) -> None:
    """Prints parameters, FLOPs, activation memory and the kernel of each op, each beside the paper's own figure."""
    complete(run)
    config = run.plain()
    with torch.device("meta"):
        task = build_task(run, config)
    facts = model_facts(task, config)
    saved = activation_bytes(task, config["data"])
    figures = published(run) or {}
    rows = [
        ("parameters", f"{facts['params']['total']:,}", stated(figures, "params_m", "M")),
        ("trainable parameters", f"{facts['params']['trainable']:,}", ""),
        ("FLOPs of one sample forward, matrix products", quantity(facts["flops"]), stated(figures, "gflops", "GFLOPs")),
        (
            "MACs of one sample forward, matrix products",
            quantity(facts["flops"] // 2),
            stated(figures, "gmacs", "GMACs"),
        ),
        (f"activations kept for backward, batch {config['data']['batch_size']}", f"{saved / 2**20:.1f} MiB", ""),
        *((f"kernel of {op}", backend, "") for op, backend in facts["kernels"].items()),
        *((metric, "", f"{value:g}") for metric, value in figures.items() if metric.startswith("test/")),
    ]
    table = Table(title=f"{run.choices['model']} on {config['data']['name']}", title_justify="left")
    for column, justify in (("", "left"), ("this set-up", "right"), ("published", "right")):
        table.add_column(column, justify=justify)
    for row in rows if figures else [row[:2] for row in rows]:
        table.add_row(*row)
    console = Console()
    console.print(table)
    if figures:
        console.print(f"published: {run.cfg.paper.title} ({run.cfg.paper.year}); {figures['source']}", soft_wrap=True)
    if figures.get("changed"):
        console.print(f"not the published set-up: {', '.join(figures['changed'])}", soft_wrap=True)


def activation_bytes(task: L.LightningModule, data: dict[str, Any]) -> int:
    """Bytes that a training forward pass keeps for backward at the config's batch size, parameters left out."""
    model = task.model.to("meta").train()
    kept: dict[int, int] = {}
    parameters = {id(p) for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with of_torch(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        inputs = task.example_inputs(data, data["batch_size"], torch.device("meta"))
        model(*inputs)
    return sum(kept.values())


def stated(figures: dict[str, Any], key: str, unit: str) -> str:
    """A published figure with its unit, or nothing."""
    return f"{figures[key]:g} {unit}" if key in figures else ""


def quantity(value: float) -> str:
    """12345678 -> 12.35 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:g}"

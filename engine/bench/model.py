"""The time of a whole model's training step, by kernel choice and batch size."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call

import kernels
from engine.bench.ops import Row, measure
from engine.build import build_task, complete
from engine.flops import forward_cost
from engine.run import Run
from kernels.registry import backends


def time_model(run: Run, config: dict[str, Any], device: torch.device, batches: list[int], repeats: int) -> list[Row]:
    """Rows of the config's model on random inputs of its data config: a row per batch size and kernel choice."""
    complete(run)
    config = run.plain()
    task = build_task(run, config)
    flops, called = forward_cost(task, config["data"])
    model = task.model.to(device).train()
    name = f"{run.choices['model']} on {config['data']['name']}"
    weights = dict(model.named_parameters())
    rows = []
    for batch in batches:
        meta = task.example_inputs(config["data"], batch, torch.device("meta"))
        inputs = tuple(torch.randn(x.shape, device=device) for x in meta)
        step = Step(model, len(inputs), list(weights))
        for choice in ("reference", "torch", "triton"):
            if not all(usable(op, choice, device) for op in called):
                continue
            row = Row(name, f"batch {batch}", choice, True)
            with kernels.using(**dict.fromkeys(called, choice)):
                measure(row, step, (*inputs, *weights.values()), {}, repeats)
            if row.forward_ms:
                row.tflops = flops * batch / row.forward_ms / 1e9
            rows.append(row)
    return rows


def usable(op: str, name: str, device: torch.device) -> bool:
    """Whether a backend is there and runs on this device; an interpreter does not count."""
    backend = backends(op)[0].get(name)
    interpreted = name == "triton" and device.type == "cpu"
    return backend is not None and not interpreted and backend.supports(device, torch.float32)


@dataclass
class Step:
    """A model as a function of its inputs and its weights, so that backward makes the gradients of the latter."""

    model: torch.nn.Module
    inputs: int
    names: list[str]

    def __call__(self, *values: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(self.names, values[self.inputs :], strict=True))
        return functional_call(self.model, weights, values[: self.inputs])

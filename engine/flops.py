"""FLOPs of one forward pass, counted on the meta device: no data, no memory, no arithmetic."""

import copy
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

import kernels


def count_flops(task: L.LightningModule, data: dict[str, Any], batch: int = 1) -> int:
    """FLOPs (two per multiply-add) of the model's forward pass on `batch` samples.

    Counted with the reference kernels, since fused ones are opaque to the counter.
    """
    model = copy.deepcopy(task.model).to("meta").eval()
    inputs = task.example_inputs(data, batch, torch.device("meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), kernels.using(attention="reference"), counter:
        model(*inputs)
    return counter.get_total_flops()

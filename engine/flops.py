"""What one forward pass takes, counted on the meta device: no data, no memory, no arithmetic."""

import copy
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

import kernels


def forward_cost(task: L.LightningModule, data: dict[str, Any], batch: int = 1) -> tuple[int, set[str]]:
    """(FLOPs, ops of `kernels` called) of the model's forward pass on `batch` samples.

    FLOPs are two per multiply-add of matrix products and convolutions, as papers count them; elementwise work, that of
    a scan too, is not in them. Counted with the reference attention, since fused ones are opaque to the counter.
    """
    model = copy.deepcopy(task.model).to("meta").eval()
    inputs = task.example_inputs(data, batch, torch.device("meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), kernels.using(attention="reference"), kernels.recording() as called, counter:
        model(*inputs)
    return counter.get_total_flops(), called

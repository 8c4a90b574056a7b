"""What one forward pass takes, counted on the meta device: no data, no memory, no arithmetic."""

import copy
from contextlib import AbstractContextManager
from typing import Any

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels.registry import ops


def forward_cost(task: L.LightningModule, data: dict[str, Any], batch: int = 1) -> tuple[int, set[str]]:
    """(FLOPs, ops of `kernels` called) of the model's forward pass on `batch` samples.

    FLOPs are two per multiply-add of matrix products and convolutions, as papers count them; elementwise work, that of
    a scan too, is not in them. Counted with the reference attention, since fused ones are opaque to the counter.
    """
    model = copy.deepcopy(task.model).to("meta").eval()
    inputs = task.example_inputs(data, batch, torch.device("meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), of_torch(attention="reference"), kernels.recording() as called, counter:
        model(*inputs)
    return counter.get_total_flops(), called


def of_torch(**chosen: str) -> AbstractContextManager[None]:
    """Within it torch computes all ops (or as `chosen`), whatever the config wants: Triton knows no meta tensors."""
    return kernels.using(**dict.fromkeys(ops(), "auto") | chosen, strict=False)

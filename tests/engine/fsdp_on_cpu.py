"""The command, with FSDP on the CPU: Lightning refuses it and torch (2.13) supports only a part of it.

What is replaced: the device that Lightning hands to FSDP; the gathering of whole weights, which ends in a segmentation
fault where it moves them "to the CPU"; the optimiser's state, whose gathering does the same, is left out.
"""

from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType

import engine.train
import runner


class OnCpu(FSDPStrategy):
    def _setup_model(self, model: torch.nn.Module) -> FullyShardedDataParallel:
        return FullyShardedDataParallel(
            model, device_id=torch.device("cpu"), sharding_strategy=self.sharding_strategy, **self.kwargs
        )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        kind, config = StateDictType.FULL_STATE_DICT, FullStateDictConfig(offload_to_cpu=False, rank0_only=False)
        with FullyShardedDataParallel.state_dict_type(self.model, kind, config):
            return {key: value.clone() for key, value in self.model.state_dict().items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {}


def on_cpu(settings: dict[str, Any]) -> dict[str, Any]:
    """As `engine.distributed.with_strategy`."""
    strategy = settings["strategy"]
    if isinstance(strategy, dict):  # training; the test runs on whole copies, by DDP
        strategy = OnCpu(**{key: value for key, value in strategy.items() if key != "_target_"})
    return settings | {"strategy": strategy}


if __name__ == "__main__":
    engine.train.with_strategy = on_cpu
    runner.main()

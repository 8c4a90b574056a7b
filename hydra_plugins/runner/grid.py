"""hydra/sweeper=grid: every combination, of which only what has no results yet is run."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from engine.packages import need_plugins
from engine.sweep import Ledger


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, with a launcher that skips what has finished and accounts for all."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        need_plugins(config)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.launcher = self.ledger = Ledger(self.launcher, hydra_context, config)

    def sweep(self, arguments: list[str]) -> Any:
        with self.ledger:
            return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: the ledger composes every job before the first one starts."""

"""What the data of every task shares: batches of indices in a seeded order, loaders that can resume, the base class.

Notable: a dataset gathers a whole batch from a tensor of indices (no per-sample Python, no collate); the order of
epoch e is a function of (seed, e) alone; a loader's position is part of Lightning's checkpoint, so a killed run goes on
at the next batch. Under torch.distributed a batch is shared out among the processes: how many there are changes neither
the batches nor their number.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler


class BatchDataset(Protocol):
    """A dataset read batch-wise: `ds[index]` with index (B,) int64 gives a batch of whole tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]: ...


def choose(name: str, value: object, allowed: Sequence) -> None:
    """ValueError with the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(str, allowed))}")


def at_least(name: str, value: object, least: int) -> None:
    """ValueError unless `value` is an integer >= least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give an integer of at least {least}")


def seeded(*parts: object) -> torch.Generator:
    """A generator whose numbers are a function of `parts` (a seed, an epoch, a window's number, ...) alone."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """(count,) int64: the permutation of epoch `epoch`, a function of count, seed and epoch alone."""
    return torch.randperm(count, generator=seeded(seed, epoch))


class IndexBatches(Sampler[Tensor]):
    """Yields index tensors (B,) int64: shuffled by (seed, epoch), or in order.

    `drop_last` drops a partial last batch if at least one full batch exists. `position` counts the batches this epoch
    gave. Under torch.distributed each rank gets its share of every batch, and no rank ever gets an empty one as long as
    there are as many indices as ranks: when shuffling, equal shares (gradients are averaged over ranks), what is left
    over dropped; in order, every index once (a last batch with fewer indices than ranks joins the one before it).
    """

    def __init__(self, count: int, batch_size: int, shuffle: bool = False, drop_last: bool = False, seed: int = 0):
        at_least("data.batch_size", batch_size, 1)
        self.count, self.batch_size, self.shuffle, self.drop_last, self.seed = (
            count,
            batch_size,
            shuffle,
            drop_last,
            seed,
        )
        self.epoch, self.position = 0, 0
        self._resume: tuple[int, int] | None = None  # (epoch, batches already given): used up by that epoch's iteration

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume = (state["epoch"], state["position"])

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        partial = rest > 0 and not (self.drop_last and full)
        joins = full and not self.shuffle and rest < _rank_and_world()[1]
        return full + (partial and not joins)

    def __iter__(self) -> Iterator[Tensor]:  # a generator: the epoch is read when the first batch is asked for
        order = epoch_order(self.count, self.seed, self.epoch) if self.shuffle else torch.arange(self.count)
        if self.drop_last and self.count > self.batch_size:
            order = order[: self.count // self.batch_size * self.batch_size]
        starts = [i * self.batch_size for i in range(1, len(self))]
        batches = order.tensor_split(starts)
        start = self._resume[1] if self._resume is not None and self._resume[0] == self.epoch else 0
        self._resume = None
        for self.position in range(start + 1, len(batches) + 1):
            yield self._share(batches[self.position - 1])

    def _share(self, batch: Tensor) -> Tensor:
        """This rank's part of a batch."""
        rank, world = _rank_and_world()
        if world > 1 and self.shuffle:
            batch = batch[: len(batch) // world * world]
        return batch.tensor_split(world)[rank] if world > 1 else batch


class BatchLoader(DataLoader):
    """A DataLoader over a BatchDataset; Lightning saves and restores its position (`state_dict`, `load_state_dict`)."""

    def __init__(self, dataset: BatchDataset, batches: IndexBatches, pin_memory: bool = False):
        super().__init__(dataset, sampler=batches, batch_size=None, collate_fn=_as_it_is, pin_memory=pin_memory)

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)


class TaskData(LightningDataModule):
    """Base of every task's data module: `setup` of the subclass sets `train`, `val` and `test` (BatchDatasets).

    `val` may be None: the run then trains to its end, and its last weights count.

    `batch_size` is that of a step of the whole run: several processes share each batch.

    Training is shuffled by (seed, epoch) and drops a partial last batch if there is a full one; validation and test
    never drop anything (unless `drop_last_test`, which exists to reproduce old tables).
    """

    train: BatchDataset
    val: BatchDataset | None
    test: BatchDataset

    def __init__(self, batch_size: int, seed: int = 0, drop_last_test: bool = False):
        super().__init__()
        at_least("data.batch_size", batch_size, 1)
        self.batch_size, self.seed, self.drop_last_test = batch_size, seed, drop_last_test

    @staticmethod
    def complete(config: dict) -> dict:
        """The data config with what it leaves open (null) filled in from the data; nothing is open by default."""
        return config

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Lightning's own, which looks through the batch for tensors to move; on the CPU there are none."""
        return batch if device.type == "cpu" else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> BatchLoader:
        return self._loader(self.train, shuffle=True, drop_last=True)

    def val_dataloader(self) -> BatchLoader | list:
        return [] if self.val is None else self._loader(self.val)

    def test_dataloader(self) -> BatchLoader:
        return self._loader(self.test, drop_last=self.drop_last_test)

    def predict_dataloader(self) -> BatchLoader:
        return self._loader(self.test)

    def _loader(self, dataset: BatchDataset, shuffle: bool = False, drop_last: bool = False) -> BatchLoader:
        batches = IndexBatches(len(dataset), self.batch_size, shuffle, drop_last, self.seed)
        return BatchLoader(dataset, batches, pin_memory=torch.cuda.is_available())


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Nothing is left to collate."""
    return batch


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1

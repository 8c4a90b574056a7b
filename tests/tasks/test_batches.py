import lightning
import pytest
import torch

from tasks.data import BatchLoader, IndexBatches, TaskData, epoch_order


class Numbers:
    """A dataset whose items are their own indices."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"index": index}


class NumberData(TaskData):
    def setup(self, stage=None):
        self.train, self.val, self.test = Numbers(10), Numbers(7), Numbers(7)


def lists(batches):
    return [b.tolist() for b in batches]


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    used, fresh = IndexBatches(20, 4, shuffle=True, seed=3), IndexBatches(20, 4, shuffle=True, seed=3)
    for epoch in range(3):
        used.set_epoch(epoch)
        list(used)
    torch.rand(5)
    fresh.set_epoch(2)
    assert lists(fresh) == lists(used)


def test_epochs_and_seeds_have_different_orders_of_all_indices():
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)


@pytest.mark.parametrize(
    ("count", "drop_last", "sizes"), [(10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (8, True, [4, 4])]
)
def test_a_partial_last_batch_is_dropped_only_beside_full_ones(count, drop_last, sizes):
    batches = IndexBatches(count, 4, drop_last=drop_last)
    assert [len(b) for b in batches] == sizes and len(batches) == len(sizes)


def test_training_drops_the_partial_batch_and_evaluation_drops_nothing():
    data = NumberData(batch_size=4)
    data.setup()
    assert len(data.train_dataloader()) == 2
    assert sum(len(b["index"]) for b in data.val_dataloader()) == 7
    assert torch.cat([b["index"] for b in data.test_dataloader()]).tolist() == list(range(7))


def test_drop_last_test_drops_only_in_the_test_loader():
    data = NumberData(batch_size=4, drop_last_test=True)
    data.setup()
    assert len(data.test_dataloader()) == 1 and len(data.val_dataloader()) == 2


def test_a_batch_size_that_is_not_a_positive_integer_is_refused():
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"data.batch_size="):
            NumberData(batch_size=wrong)


def shares(monkeypatch, world, **settings):
    """What each of `world` ranks gets: lists of batches."""
    given = []
    for rank in range(world):
        monkeypatch.setattr("tasks.data._rank_and_world", lambda rank=rank: (rank, world))
        batches = IndexBatches(**settings)
        given.append(lists(batches))
        assert len(batches) == len(given[-1])
    return given


def test_ranks_share_every_training_batch_in_equal_parts(monkeypatch):
    (whole,) = shares(monkeypatch, 1, count=22, batch_size=4, shuffle=True, drop_last=True)
    first, second = shares(monkeypatch, 2, count=22, batch_size=4, shuffle=True, drop_last=True)
    assert [a + b for a, b in zip(first, second, strict=True)] == whole and len(whole) == 5
    assert {len(batch) for batch in first + second} == {2}


@pytest.mark.parametrize(("count", "batch_size"), [(22, 4), (21, 4), (17, 4), (9, 2), (4, 4), (3, 4), (2, 8), (5, 2)])
@pytest.mark.parametrize("world", [1, 2])
def test_ranks_evaluate_every_window_once_in_equally_many_batches(monkeypatch, world, count, batch_size):
    given = shares(monkeypatch, world, count=count, batch_size=batch_size)
    assert sorted(i for batches in given for batch in batches for i in batch) == list(range(count))
    assert len({len(batches) for batches in given}) == 1
    assert all(batch for batches in given for batch in batches)


def test_a_training_set_smaller_than_one_batch_is_shared_equally(monkeypatch):
    first, second = shares(monkeypatch, 2, count=7, batch_size=16, shuffle=True, drop_last=True)
    assert len(first[0]) == len(second[0]) == 3 and not set(first[0]) & set(second[0])


class Recorder(lightning.LightningModule):
    """Writes down which indices it is trained on, and stops when told to."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.stop_after = [], stop_after

    def training_step(self, batch, i):
        self.seen.append(batch["index"].tolist())
        return self.weight.sum()

    def on_train_batch_end(self, outputs, batch, i):
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, loader, tmp_path, ckpt=None):
    module.path = str(tmp_path / "stopped.ckpt")
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    try:
        trainer.fit(module, loader, ckpt_path=ckpt)
    except (KeyboardInterrupt, SystemExit):
        assert module.stop_after is not None
    return module.seen


@pytest.mark.parametrize("stop_after", [2, 5, 8])
def test_a_run_stopped_within_an_epoch_goes_on_at_the_next_batch(tmp_path, stop_after):
    def loader():
        return BatchLoader(Numbers(20), IndexBatches(20, 5, shuffle=True, seed=1))

    whole = fit(Recorder(), loader(), tmp_path)
    first = fit(Recorder(stop_after), loader(), tmp_path)
    rest = fit(Recorder(), loader(), tmp_path, ckpt=str(tmp_path / "stopped.ckpt"))
    assert first + rest == whole and len(whole) == 12

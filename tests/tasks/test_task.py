"""The forecasting task around real models: losses, variates, refusals."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from models.itransformer import ITransformer
from models.linear import DLinear
from tasks.task import Task
from tasks.ts_forecast.task import Forecast

L, H, N, B = 8, 4, 6, 5


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ITransformer(L, H, d_model=8, depth=1, heads=2, d_ff=8).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (L, N), "y": (H, N), "marks": (L, 4), "future_marks": (H, 4)}
    return {key: torch.randn(B, *shape, generator=generator) for key, shape in shapes.items()}


@pytest.mark.parametrize(("name", "loss"), [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", F.smooth_l1_loss)])
def test_the_training_loss_is_the_named_one(model, batch, name, loss):
    task = Forecast(model, loss=name)
    assert torch.equal(task.training_step(batch, 0), loss(model(batch["x"], batch["marks"]), batch["y"]))


def test_data_without_time_features_has_none_in_the_model(model, batch):
    bare = {key: batch[key] for key in ("x", "y")}
    assert torch.equal(Forecast(model)(bare), model(batch["x"]))


def test_some_variates_are_the_first_ones_where_they_are_not_drawn_anew(model, batch):
    task = Forecast(model, train_variates=0.5, resample_variates=False)
    chosen = task.some_variates(batch)
    assert torch.equal(chosen["x"], batch["x"][..., :3]) and torch.equal(chosen["y"], batch["y"][..., :3])
    assert torch.equal(chosen["marks"], batch["marks"])


def test_some_variates_are_drawn_anew_each_step_with_their_own_targets(model, batch):
    task = Forecast(model, train_variates=0.5)
    batch["y"] = batch["x"][:, :H]
    torch.manual_seed(0)
    drawn = [task.some_variates(batch) for _ in range(20)]
    assert all(torch.equal(d["x"][:, :H], d["y"]) and d["x"].shape[-1] == 3 for d in drawn)
    assert len({tuple(d["x"][0, 0].tolist()) for d in drawn}) > 5


def test_at_least_one_variate_is_trained_on(model, batch):
    assert Forecast(model, train_variates=0.01).some_variates(batch)["x"].shape[-1] == 1


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_of_variates_outside_its_range_is_refused(model, share):
    with pytest.raises(ValueError, match=r"task\.train_variates=.*\(0, 1\]"):
        Forecast(model, train_variates=share)


def test_a_share_of_variates_needs_a_model_that_takes_any_number():
    with pytest.raises(ValueError, match="DLinear is built for one number of variates"):
        Forecast(DLinear(30, H, N, individual=True), train_variates=0.5)


def test_an_unknown_loss_and_direction_name_the_valid_ones(model):
    with pytest.raises(ValueError, match=r"task\.loss='rmse': choose from mse, mae, huber"):
        Forecast(model, loss="rmse")
    with pytest.raises(ValueError, match=r"task\.direction='up': choose min or max"):
        Task(model, direction="up")


@pytest.mark.parametrize(("marks", "shapes"), [(0, [(2, L, N)]), (4, [(2, L, N), (2, L, 4), (2, H, 4)])])
def test_example_inputs_have_the_shapes_that_the_data_config_states(marks, shapes):
    data = {"lookback": L, "horizon": H, "variates": N, "marks": marks}
    inputs = Forecast.example_inputs(data, 2, torch.device("meta"))
    assert [tuple(tensor.shape) for tensor in inputs] == shapes


def test_only_trainable_parameters_reach_the_optimiser(model):
    model.embed.weight.requires_grad_(False)
    task = Forecast(model, optimizer=partial(torch.optim.Adam, lr=0.1))
    task.trainer = Steps()
    optimizer = task.configure_optimizers()["optimizer"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


class Steps:
    """The two facts that an optimiser asks a trainer for."""

    estimated_stepping_batches, max_epochs = 10, 2

"""The optimiser, schedule and trainer groups."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from presets import composed


@pytest.mark.parametrize("optim", ["adam", "adamw"])
def test_optimiser_is_built_from_its_config(optim):
    settings = OmegaConf.to_container(composed(f"optim={optim}").optim)
    settings.pop("schedule")
    optimizer = instantiate(settings, [torch.nn.Parameter(torch.zeros(1))], _convert_="all")
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("schedule", ["constant", "cosine", "halving"])
def test_schedule_is_chosen_apart_from_the_optimiser(schedule):
    chosen = composed("optim=adam", f"optim/schedule={schedule}").optim.schedule
    assert chosen._target_ == f"tasks.schedules.{schedule}"


def test_halving_keeps_the_rate_for_two_epochs_and_halves_it_from_then_on():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = instantiate(composed("optim/schedule=halving").optim.schedule)
    scheduler = schedule(optimizer, steps_per_epoch=10, max_steps=50)["scheduler"]
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.125]


TRAINERS = [("cpu", "cpu", "32-true"), ("gpu", "gpu", "bf16-mixed")]


@pytest.mark.parametrize(("trainer", "accelerator", "precision"), TRAINERS)
def test_trainer_option_keeps_the_other_settings_of_auto(trainer, accelerator, precision):
    chosen, auto = composed(f"trainer={trainer}").trainer, composed().trainer
    assert (chosen.accelerator, chosen.precision) == (accelerator, precision)
    assert set(chosen) == set(auto) and chosen.patience == auto.patience == 3

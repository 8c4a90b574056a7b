"""Shared by all tests: the command as a fixture, a small series on disk, and finished runs on it."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker per core: torch, not loaded yet, and what tests start take one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():  # read when triton is first imported, which Lightning does already
    os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before tests/, whose folders mirror the packages

from command import Outcome, call
from small_series import BATCH, HORIZON, LOOKBACK, write_series


@pytest.fixture(scope="session")
def series_csv(tmp_path_factory) -> Path:
    """A CSV with a date column and three series of 240 hours."""
    return write_series(tmp_path_factory.mktemp("series") / "series.csv")


@pytest.fixture(scope="session")
def data_args(series_csv) -> tuple[str, ...]:
    """The small series as data, on the CPU, without a tracker."""
    shape = (f"data.lookback={LOOKBACK}", f"data.horizon={HORIZON}", f"data.batch_size={BATCH}")
    return ("data=csv", f"data.path={series_csv}", *shape, "trainer=cpu", "logger=none")


@pytest.fixture(scope="session")
def tiny(data_args) -> tuple[str, ...]:
    """Three steps of a small iTransformer on the small series."""
    model = ("model=itransformer", "model.d_model=16", "model.heads=2", "model.depth=1")
    return (*data_args, *model, "trainer.max_steps=3")


@pytest.fixture
def runner(tmp_path) -> Callable[..., Outcome]:
    """`runner("mode=fit", ...)`: the command in this process, from an empty folder."""
    return partial(call, tmp_path)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, tiny) -> Outcome:
    """A finished run of `tiny`."""
    outcome = call(tmp_path_factory.mktemp("fitted"), *tiny)
    assert outcome.code == 0, outcome.err
    return outcome

"""hydra/sweeper=optuna: the search goes on where it stopped and takes stored metrics for finished jobs."""

import json
import signal
import time
from pathlib import Path

import pytest
from command import spawn, start

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install optuna")


@pytest.fixture(scope="session")
def search(data_args) -> tuple[str, ...]:
    """A search over the learning rate and the seed of a linear model."""
    space = ("optim.lr=tag(log,interval(0.001,0.1))", "seed=range(0,3)")
    return ("-m", "hydra/sweeper=optuna", *data_args, "model=linear", "trainer.max_steps=1", *space)


def study(folder: Path) -> optuna.Study:
    """The study that a search has left."""
    path = next(folder.glob("outputs/ts_forecast/search-*/trials.db"))
    storage = f"sqlite:///{path}"
    return optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)


def jobs(folder: Path) -> dict[Path, int]:
    """When the results of every job were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("outputs/ts_forecast/linear-*/results.json")}


def test_a_search_minimises_the_metric_that_its_jobs_store(runner, tmp_path, search):
    outcome = runner(*search, "hydra.sweeper.n_trials=3")
    assert outcome.code == 0, outcome.err
    stored = [json.loads(path.read_text())["objective"] for path in jobs(tmp_path)]
    found = study(tmp_path)
    assert sorted(trial.value for trial in found.trials) == sorted(stored)
    assert found.best_value == min(stored)
    assert f"best of 3 trials: {min(stored):.4g}" in outcome.out


def test_finished_trials_count_when_a_search_is_started_again(runner, tmp_path, search):
    runner(*search, "hydra.sweeper.n_trials=2")
    before = jobs(tmp_path)
    assert runner(*search, "hydra.sweeper.n_trials=2").code == 0
    assert jobs(tmp_path) == before
    assert runner(*search, "hydra.sweeper.n_trials=3").code == 0
    assert len(study(tmp_path).trials) == 3
    assert before.items() <= jobs(tmp_path).items()


def test_a_trial_whose_job_has_finished_before_takes_its_stored_metric(runner, tmp_path, search):
    two = [*search[:-2], "seed=0,1", "hydra.sweeper.n_trials=4"]
    outcome = runner(*two)
    assert outcome.code == 0, outcome.err
    assert len(jobs(tmp_path)) <= 2
    assert len(study(tmp_path).trials) == 4 and "skipped" in outcome.out


def test_a_failed_trial_is_told_to_the_search_and_does_not_end_it(runner, tmp_path, search):
    outcome = runner(*search[:-2], "optim.lr=-1,0.01", "hydra.sweeper.n_trials=4", "hydra.sweeper.sampler=random")
    assert outcome.code == 0, outcome.err
    states = {trial.params["optim.lr"]: trial.state.name for trial in study(tmp_path).trials}
    assert states == {"-1": "FAIL", "0.01": "COMPLETE"}


def test_a_killed_search_goes_on_with_the_trial_that_it_had_begun(tmp_path, search):
    command = (*search, "hydra.sweeper.n_trials=2")
    first = start(tmp_path, *command)
    deadline = time.monotonic() + 90
    while not jobs(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    begun = study(tmp_path).trials
    second = spawn(tmp_path, *command)
    assert second.code == 0, second.err
    found = study(tmp_path)
    assert sum(trial.state.name == "COMPLETE" for trial in found.trials) == 2
    assert begun[-1].params in [trial.params for trial in found.trials if trial.state.name == "COMPLETE"]
    assert len(jobs(tmp_path)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hydra.sweeper.n_trials=0"], "n_trials=0"),
        (["hydra.sweeper.sampler=grid"], "tpe, random"),
    ],
)
def test_a_wrong_setting_of_the_search_is_told_in_one_line(runner, search, arguments, words):
    outcome = runner(*search, *arguments)
    assert outcome.code == 2 and words in outcome.line


def test_a_search_without_a_space_is_told_in_one_line(runner, data_args):
    outcome = runner("-m", "hydra/sweeper=optuna", *data_args)
    assert outcome.code == 2 and "nothing to search" in outcome.line

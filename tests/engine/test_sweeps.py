"""The same sweep again: what is skipped, resumed, tried again and run, and what the table says."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Outcome, spawn, start

SWEEP = "outputs/ts_forecast"


@pytest.fixture(scope="session")
def quick(data_args) -> tuple[str, ...]:
    """A linear model for one step."""
    return (*data_args, "model=linear", "trainer.max_steps=1")


def results(folder: Path) -> dict[str, dict]:
    """results.json of every job of a sweep by directory name."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob(f"{SWEEP}/*/results.json")}


def statuses(folder: Path) -> list[str]:
    """Every job's status, sorted."""
    return sorted(found["status"] for found in results(folder).values())


def begun(folder: Path) -> dict[str, int]:
    """How often each job was begun."""
    found = folder.glob(f"{SWEEP}/*/attempts.jsonl")
    return {path.parent.name: path.read_text().count('"began"') for path in found}


def counts(outcome: Outcome) -> str:
    """The last line of the table."""
    return outcome.out.splitlines()[-1]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits until something is true of a running process."""
    deadline = time.monotonic() + 90
    while not condition() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert condition()


def test_a_failing_job_is_recorded_and_does_not_end_the_sweep(runner, tmp_path, quick):
    outcome = runner("-m", *quick, "optim.lr=-1,0.01")
    assert outcome.code == 1
    assert statuses(tmp_path) == ["done", "failed"]
    assert counts(outcome) == "2 jobs: 1 done, 1 failed"
    failed = next(found for found in results(tmp_path).values() if found["status"] == "failed")
    assert "-1" in failed["error"] and failed["error"][:20] in outcome.out
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("runner: of 2 jobs: 1 failed")


def test_an_unexpected_error_in_one_job_is_recorded_with_its_traceback(runner, tmp_path, quick):
    assert runner("-m", *quick, "seed=0,1").code == 0
    broken, whole = sorted((tmp_path / SWEEP).glob("linear-*"))
    shutil.rmtree(broken)
    (broken / "metrics.csv" / "in_the_way").mkdir(parents=True)
    outcome = runner("-m", *quick, "seed=0,1")
    assert (outcome.code, counts(outcome)) == (1, "2 jobs: 1 skipped, 1 failed")
    assert results(tmp_path)[broken.name]["status"] == "failed"
    assert results(tmp_path)[whole.name]["status"] == "done"
    assert "metrics.csv" in (broken / "traceback.txt").read_text()


def test_a_failed_job_is_tried_again_as_often_as_retries_says(runner, tmp_path, quick):
    command = ("-m", *quick, "optim.lr=-1")
    for attempts in (1, 2, 2):
        assert runner(*command).code == 1
        assert list(begun(tmp_path).values()) == [attempts]
    assert "not tried again after 2 attempts" in runner(*command).err
    runner(*command, "retries=2")
    assert list(begun(tmp_path).values()) == [3]


def test_a_failed_job_is_left_as_it_is_with_rerun_never(runner, tmp_path, quick):
    for _ in range(2):
        runner("-m", *quick, "optim.lr=-1", "rerun=never")
    assert list(begun(tmp_path).values()) == [1]


def test_results_of_other_code_are_reported_and_done_again_with_rerun_stale(runner, tmp_path, quick):
    command = ("-m", *quick, "seed=0")
    runner(*command)
    file = next(tmp_path.glob(f"{SWEEP}/*/results.json"))
    old = json.loads(file.read_text())
    old["versions"]["code"] = "older"
    file.write_text(json.dumps(old))
    assert "made by other code" in runner(*command).out
    assert json.loads(file.read_text()) == old
    again = runner(*command, "rerun=stale")
    assert counts(again) == "1 job: 1 done"
    assert json.loads((file.parent / ".previous-1" / "results.json").read_text()) == old
    assert json.loads(file.read_text())["metrics"] == old["metrics"]
    assert counts(runner(*command, "rerun=stale")) == "1 job: 1 skipped"


def test_everything_is_done_again_with_rerun_always(runner, tmp_path, quick):
    for _ in range(2):
        assert runner("-m", *quick, "seed=0", "rerun=always").code == 0
    assert list(begun(tmp_path).values()) == [2]


def test_two_equal_jobs_are_run_once(runner, tmp_path, quick):
    assert runner("-m", *quick, "seed=0,0").code == 0
    assert list(begun(tmp_path).values()) == [1]


def test_a_wrong_value_in_one_job_is_told_before_any_job_starts(runner, tmp_path, quick):
    outcome = runner("-m", *quick, "seed=0,x")
    assert outcome.code == 2
    assert "job 1" in outcome.line and "seed=x" in outcome.line
    assert not results(tmp_path)


@pytest.mark.parametrize(("argument", "words"), [("rerun=sometimes", "never, failed"), ("retries=-1", "0 or more")])
def test_a_wrong_setting_of_sweeps_is_told_in_one_line(runner, tmp_path, quick, argument, words):
    outcome = runner(*quick, argument)
    assert outcome.code == 2
    assert argument in outcome.line and words in outcome.line
    assert list(tmp_path.iterdir()) == []


def test_a_mode_without_results_is_run_every_time(runner, tmp_path):
    for _ in range(2):
        outcome = runner("-m", "mode=describe", "model=linear,dlinear")
        assert (outcome.code, counts(outcome)) == (0, "2 jobs: 2 done")
    assert not begun(tmp_path)


def test_a_killed_sweep_started_again_runs_only_what_is_missing(tmp_path, quick):
    command = ("-m", *quick, "seed=0,1,2")
    first = start(tmp_path, *command)
    wait_for(lambda: "done" in statuses(tmp_path) and len(begun(tmp_path)) > 1, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = [name for name, found in results(tmp_path).items() if found["status"] == "done"]
    before = begun(tmp_path)
    second = spawn(tmp_path, *command)
    assert second.code == 0, second.err
    assert statuses(tmp_path) == ["done"] * 3
    assert f"{len(done)} skipped" in counts(second)
    assert begun(tmp_path) == {name: before.get(name, 0) + (name not in done) for name in results(tmp_path)}


def test_ctrl_c_shows_what_became_of_every_job(tmp_path, data_args):
    endless = (*data_args, "model=linear", "trainer.max_epochs=1000000", "trainer.patience=null")
    process = start(tmp_path, "-m", *endless, "seed=0,1")
    wait_for(lambda: bool(list(tmp_path.glob(f"{SWEEP}/*/best.ckpt"))), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == "2 jobs: 1 interrupted, 1 not started"
    assert "Traceback" not in err


def test_sigterm_interrupts_a_run_as_ctrl_c_does(tmp_path, data_args):
    endless = (*data_args, "model=linear", "trainer.max_epochs=1000000", "trainer.patience=null")
    process = start(tmp_path, *endless)
    wait_for(lambda: bool(list(tmp_path.glob(f"{SWEEP}/*/best.ckpt"))), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert statuses(tmp_path) == ["interrupted"]
    assert not list(tmp_path.rglob("lock.*"))


def test_two_processes_on_one_sweep_run_no_job_twice(tmp_path, quick):
    command = ("-m", *quick, "seed=0,1")
    both = [start(tmp_path, *command) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert statuses(tmp_path) == ["done"] * 2, errors
    assert list(begun(tmp_path).values()) == [1, 1]
    assert {process.returncode for process in both} <= {0, 1}

"""hydra/launcher=slurm on a real Slurm: kills in the middle, and the same command again."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import spawn, start
from slurm import Cluster, missing

pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

SWEEP = "outputs/ts_forecast"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        yield running


@pytest.fixture
def sweep(data_args) -> tuple[str, ...]:
    """A sweep of linear models on the cluster, one core for each."""
    launcher = ("hydra/launcher=slurm", "hydra.launcher.poll=0.5", "hydra.launcher.cpus_per_task=1")
    return ("-m", *data_args, *launcher, "model=linear")


def written(folder: Path) -> dict[str, int]:
    """When the results of every finished job were written."""
    files = folder.glob(f"{SWEEP}/*/results.json")
    return {f.parent.name: f.stat().st_mtime_ns for f in files if json.loads(f.read_text())["status"] == "done"}


def begun(folder: Path) -> dict[str, int]:
    """How often every job was begun."""
    files = folder.glob(f"{SWEEP}/*/attempts.jsonl")
    return {path.parent.name: path.read_text().count('"began"') for path in files}


def at_work(folder: Path) -> dict[str, int]:
    """The living processes that hold a run directory."""
    held = {path.parent.name: json.loads(path.read_text())["pid"] for path in folder.glob(f"{SWEEP}/*/lock.*")}
    return {name: pid for name, pid in held.items() if Path(f"/proc/{pid}").exists()}


def just_begun(folder: Path) -> dict[str, int]:
    """Those of them that have noted their attempt and have seconds to go: they still import."""
    noted = begun(folder)
    importing = {name for name in noted if noted[name] and not (folder / SWEEP / name / "results.json").exists()}
    return {name: pid for name, pid in at_work(folder).items() if name in importing}


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Waits until something is true while a command runs."""
    deadline = time.monotonic() + 100
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_after_kills_of_a_job_and_of_the_node_daemon_the_second_call_runs_only_what_is_missing(
    cluster, tmp_path, sweep
):
    command = (*sweep, "trainer.max_steps=1", "seed=0,1,2,3")
    first = start(tmp_path, *command, **cluster.environ)
    wait_for(lambda: written(tmp_path) and just_begun(tmp_path), first)
    victim, pid = next(iter(just_begun(tmp_path).items()))
    os.kill(pid, signal.SIGKILL)
    cluster.kill("slurmd")
    cluster.start("slurmd")
    out, err = first.communicate(timeout=120)
    assert first.returncode == 1, err
    assert out.splitlines()[-1] == "4 jobs: 3 done, 1 interrupted"
    done, before = written(tmp_path), begun(tmp_path)
    assert len(done) == 3 and victim not in done
    second = spawn(tmp_path, *command, **cluster.environ)
    assert second.code == 0, second.err
    assert second.out.splitlines()[-1] == "4 jobs: 1 done, 3 skipped"  # it had nothing to resume from
    assert done.items() < written(tmp_path).items()
    assert begun(tmp_path) == before | {victim: before[victim] + 1}


def test_a_job_that_slurm_preempts_is_interrupted_and_goes_on_when_it_is_queued_again(cluster, tmp_path, sweep):
    process = start(tmp_path, *sweep, "trainer.max_epochs=1000000", "trainer.patience=null", **cluster.environ)
    wait_for(lambda: list(tmp_path.glob(f"{SWEEP}/*/best.ckpt")), process)
    task = cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%A").split()[0]
    cluster.run("scontrol", "requeue", task)
    wait_for(lambda: list(begun(tmp_path).values()) == [2], process)
    attempts = next(tmp_path.glob(f"{SWEEP}/*/attempts.jsonl")).read_text().splitlines()
    assert [json.loads(line).get("status") or json.loads(line)["plan"] for line in attempts] == [
        "new",
        "interrupted",
        "resume",
    ]
    cluster.run("scancel", task)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out.splitlines()[-1] == "1 job: 1 interrupted"
    results = json.loads(next(tmp_path.glob(f"{SWEEP}/*/results.json")).read_text())
    assert results["status"] == "interrupted"
    assert not at_work(tmp_path)

"""mode=sync: what is found, what is sent, and the messages; `wandb sync` itself talks to a server on 127.0.0.1."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import call
from wandb_server import serving

from engine.sync import command


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, data_args):
    """A finished run with its offline W&B folder."""
    arguments = [argument for argument in data_args if argument != "logger=none"]
    outcome = call(
        tmp_path_factory.mktemp("tracked"), *arguments, "model=linear", "trainer.max_steps=2", "logger=wandb"
    )
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture
def outputs(tmp_path, tracked) -> Path:
    """A copy of its outputs, as if from another machine."""
    return Path(shutil.copytree(tracked.folder / "outputs", tmp_path / "outputs"))


@pytest.fixture
def server(monkeypatch):
    """A W&B server with a good key."""
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield server


def offline_file(outputs: Path) -> Path:
    """The only .wandb file."""
    (file,) = outputs.glob("*/*/wandb/offline-run-*/*.wandb")
    return file


def test_an_offline_run_is_uploaded_whole(runner, outputs, tracked, server):
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 0, outcome.err
    file = offline_file(outputs)
    run_id = file.stem.removeprefix("run-")
    name = tracked.dir.name
    assert outcome.out == f"outputs/ts_forecast/{name}: uploaded, {server.url}/us/runner/runs/{run_id}\n"
    sent = server.runs[run_id]
    assert (sent["displayName"], sent["project"], sent["jobType"]) == (name, "runner", "fit")
    losses = [row["train/loss"] for row in server.history[run_id] if "train/loss" in row]
    assert losses and json.loads(sent["config"])["data"]["value"]["horizon"] == 12
    assert sum(file.startswith("media/images/figures/") for file in server.files) == len(tracked.results["figures"])


def test_an_uploaded_run_is_not_uploaded_again(runner, outputs, server):
    assert runner("mode=sync", "path=outputs").code == 0
    server.runs.clear()
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 0 and outcome.out == "nothing to upload below outputs: 1 uploaded before\n"
    assert not server.runs


def test_every_run_below_the_folder_is_found_however_deep(runner, outputs, tracked, server):
    (run,) = outputs.glob("*/*")
    for copy in ("sweep/0", "a/b/c"):
        shutil.copytree(run, outputs / copy)
    outcome = runner("mode=sync", f"path={outputs}")
    assert outcome.code == 0, outcome.err
    assert [line.split(":")[0] for line in outcome.out.splitlines()] == sorted(
        str(path) for path in (run, outputs / "sweep/0", outputs / "a/b/c")
    )


def test_a_run_that_still_goes_on_is_left_for_later(runner, outputs, server):
    results = next(outputs.glob("*/*/results.json"))
    results.write_text(json.dumps(json.loads(results.read_text()) | {"status": "running"}))
    file = offline_file(outputs)
    os.utime(file)
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 0 and "still running" in outcome.out and not server.runs
    os.utime(file, (0, 0))  # killed long ago: what there is of it goes up
    assert "uploaded" in runner("mode=sync", "path=outputs").out and server.runs


def test_without_an_api_key_one_line_says_how(runner, tmp_path, outputs, server, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 2 and "wandb login" in outcome.line and "WANDB_API_KEY" in outcome.line


def test_without_a_server_one_line_says_where_it_was_looked_for(runner, outputs, server, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 2 and "no W&B server at http://127.0.0.1:9" in outcome.line


def test_a_run_that_the_server_refuses_is_named_and_tried_again_next_time(runner, outputs, server, monkeypatch):
    server.refuses = True
    outcome = runner("mode=sync", "path=outputs")
    assert outcome.code == 2 and "1 of 1 runs were not uploaded" in outcome.line
    assert outcome.out.endswith(": not uploaded\n")
    server.refuses = False
    assert ": uploaded" in runner("mode=sync", "path=outputs").out


def test_the_folder_is_asked_for_and_must_exist(runner, tmp_path):
    assert "mode=sync needs path=" in runner("mode=sync").line
    outcome = runner("mode=sync", "path=nowhere")
    assert outcome.code == 2 and "path=nowhere: no such folder" in outcome.line
    assert list(tmp_path.iterdir()) == []


def test_the_call_is_wandbs_own_sync_in_this_python():
    folder = Path("outputs/x/wandb/offline-run-1")
    assert command([folder / "run-1.wandb"]) == [sys.executable, "-m", "wandb", "sync", str(folder)]


def test_leet_reads_the_offline_folder(outputs, tracked):
    show = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(offline_file(outputs).parent)]
    done = subprocess.run(show, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert tracked.dir.name in json.dumps(found)
    assert found["summary"]["test/mse"] == pytest.approx(tracked.results["metrics"]["test/mse"])

"""Runs that end badly: what the user reads, the exit code, and what is left."""

import json
import signal
import time

import torch
from command import start


def test_a_diverged_run_stops_with_exit_code_3_and_one_line(runner, tiny):
    outcome = runner(*tiny, "model.use_norm=false", "optim.lr=1e30")
    assert outcome.code == 3
    line = outcome.err.splitlines()[-1]
    assert line.startswith("runner: the training loss became") and "optim.lr=1e+30" in line
    assert "Traceback" not in outcome.err
    assert outcome.results["status"] == "diverged"
    assert outcome.results["metrics"] == {}


def test_a_run_that_diverges_later_keeps_its_last_good_checkpoint(runner, data_args):
    growing = ("optim=adamw", "optim.lr=100", "optim.weight_decay=1.0")  # weights grow by 100 a step
    often = ("trainer.max_epochs=9", "trainer.patience=null", "trainer.val_check_interval=1")
    outcome = runner(*data_args, "model=linear", *growing, *often)
    assert outcome.code == 3, outcome.err
    assert outcome.results["status"] == "diverged"
    state = torch.load(outcome.dir / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_an_output_folder_that_cannot_be_written_is_told_in_one_line(runner, tmp_path, tiny):
    (tmp_path / "file").write_text("")
    outcome = runner(*tiny, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert outcome.code == 2
    assert str(tmp_path / "file") in outcome.line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_hydra_run_dir_says_where_a_run_goes(runner, tmp_path, data_args):
    outcome = runner(*data_args, "model=last_value", "hydra.run.dir=here")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "here" / "results.json").is_file() and not (tmp_path / "outputs").exists()


def test_ctrl_c_ends_with_exit_code_130_and_status_interrupted(tmp_path, tiny):
    endless = [a for a in tiny if not a.startswith("trainer.max_steps")]
    endless += ["trainer.max_epochs=1000000", "trainer.patience=null", "hydra.run.dir=run"]
    process = start(tmp_path, *endless)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "best.ckpt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "interrupted"

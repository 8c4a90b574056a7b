"""Who may work in a run directory: one living process; a dead one keeps nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command import ROOT

from engine import lock
from engine.lock import Held, Holder, RunLock, acquire, holder, this_process

HOLD = "import sys, time; from pathlib import Path; from engine.lock import RunLock\n"


def process(code: str, *arguments: str) -> subprocess.Popen:
    """A Python process with this project on its path."""
    command = [sys.executable, "-c", HOLD + code, *arguments]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def holding(folder: Path) -> subprocess.Popen:
    """A process that has taken the lock and sleeps."""
    other = process("with RunLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)", str(folder))
    assert other.stdout.readline() == "held\n"
    return other


def planted(folder: Path, who: Holder, seconds_ago: float = 0) -> None:
    """A lock of another holder, last touched so long ago."""
    folder.mkdir(exist_ok=True)
    path = folder / "lock.1"
    path.write_text(json.dumps(asdict(who)))
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_a_lock_is_refused_while_its_holder_lives_and_taken_once_it_is_killed(tmp_path):
    other = holding(tmp_path)
    with pytest.raises(Held) as refused:
        acquire(tmp_path)
    assert refused.value.holder.pid == other.pid
    other.send_signal(signal.SIGKILL)
    other.wait()
    with RunLock(tmp_path):
        assert holder(tmp_path) == this_process()
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_was_given_again_holds_nothing(tmp_path):
    planted(tmp_path, replace(this_process(), started="1"))
    assert holder(tmp_path) is None


def test_a_holder_on_another_machine_counts_as_dead_once_its_lease_is_over(tmp_path):
    elsewhere = replace(this_process(), host="another-machine", pid=1)
    planted(tmp_path, elsewhere, seconds_ago=lock.LEASE / 2)
    with pytest.raises(Held, match="process 1 on another-machine"):
        acquire(tmp_path)
    planted(tmp_path, elsewhere, seconds_ago=lock.LEASE * 2)
    with RunLock(tmp_path):
        assert holder(tmp_path) == this_process()


def test_a_holder_before_the_last_boot_of_this_machine_is_not_looked_up_by_its_pid(tmp_path):
    planted(tmp_path, replace(this_process(), space="an earlier boot"), seconds_ago=lock.LEASE * 2)
    assert holder(tmp_path) is None


def test_a_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE", 0.2)
    with RunLock(tmp_path) as held:
        before = held.path.stat().st_mtime_ns
        deadline = time.monotonic() + 10
        while held.path.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert held.path.stat().st_mtime_ns > before


def test_processes_that_find_a_dead_lock_at_once_never_hold_it_together(tmp_path):
    folder = tmp_path / "run"
    code = """
import json, os
from dataclasses import asdict, replace
from engine.lock import Held, this_process
folder, inside, entered = Path(sys.argv[1]), Path(sys.argv[1] + '.inside'), 0
until = time.monotonic() + 60
while entered < 15 and time.monotonic() < until:
    try:
        with RunLock(folder) as held:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # raises where somebody else is inside
            time.sleep(0.002)
            inside.unlink()
            entered += 1
            if entered % 3 == 0:  # dies without letting go
                held.path.write_text(json.dumps(asdict(replace(this_process(), started='1'))))
                held.path = Path(sys.argv[1] + '.kept')
    except Held:
        time.sleep(0.001)
print(entered)
"""
    others = [process(code, str(folder)) for _ in range(3)]
    assert [other.communicate(timeout=100)[0] for other in others] == ["15\n"] * 3


def test_a_single_run_in_a_directory_that_another_process_works_in_is_refused(runner, tmp_path, data_args):
    other = holding(tmp_path / "here")
    try:
        outcome = runner(*data_args, "model=last_value", "hydra.run.dir=here")
    finally:
        other.kill()
        other.wait()
    assert outcome.code == 2
    assert f"process {other.pid}" in outcome.line and "hydra.run.dir" in outcome.line
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["lock.1"]

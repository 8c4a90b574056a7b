"""24 jobs on a real Slurm with kills in between, then the same command again: prints what each call did.

    python tests/cluster/kills.py [folder]

In the first call: two jobs are killed, then the node's daemon, the controller, the command itself, and what is left of
the job array is cancelled.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from command import spawn, start
from slurm import Cluster, missing
from small_series import write_series
from test_slurm import SWEEP, at_work, begun, written

SWEPT = ("model=linear,nlinear,dlinear", "seed=0,1,2,3,4,5,6,7")


def command(series: Path) -> tuple[str, ...]:
    """The sweep: one core and two steps per job."""
    launcher = ("hydra/launcher=slurm", "hydra.launcher.poll=1", "hydra.launcher.cpus_per_task=1")
    data = ("data=csv", f"data.path={series}", "data.lookback=28", "data.horizon=12", "data.batch_size=16")
    return ("-m", *launcher, *data, "trainer=cpu", "logger=none", "trainer.max_steps=2", *SWEPT)


def until(folder: Path, count: int, process: subprocess.Popen) -> None:
    """Waits for so many finished jobs and another at work."""
    while len(written(folder)) < count or not at_work(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def first_call(folder: Path, arguments: tuple[str, ...], cluster: Cluster) -> None:
    """The sweep with everything that goes wrong."""
    process = start(folder, *arguments, **cluster.environ)
    for count in (3, 6):
        until(folder, count, process)
        victim, pid = next(iter(at_work(folder).items()))
        os.kill(pid, signal.SIGKILL)
        print(f"after {count} jobs: killed {victim}")
    for count, daemon in ((9, "slurmd"), (12, "slurmctld")):
        until(folder, count, process)
        cluster.kill(daemon)
        time.sleep(3)
        cluster.start(daemon)
        time.sleep(8)
        cluster.resume()
        print(f"after {count} jobs: killed {daemon}, started it again")
    until(folder, 15, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cluster.run("scancel", "--user=root")
    print("after 15 jobs: killed the command, cancelled the array")
    while at_work(folder):
        time.sleep(0.5)


def account(folder: Path) -> str:
    """Statuses and attempts of all jobs."""
    files = folder.glob(f"{SWEEP}/*/results.json")
    statuses = Counter(json.loads(file.read_text())["status"] for file in files)
    attempts = Counter(begun(folder).values())
    tried = ", ".join(f"{n} begun {times} times" for times, n in sorted(attempts.items()))
    return f"{dict(statuses)}; {tried}; {sum(begun(folder).values())} attempts in all"


def main(folder: Path) -> None:
    """Three calls and what each did."""
    arguments = command(write_series(folder / "series.csv"))
    with Cluster(folder / "cluster") as cluster:
        first_call(folder, arguments, cluster)
        print("first call: ", account(folder))
        for name in ("second", "third"):
            before, tried = written(folder), begun(folder)
            outcome = spawn(folder, *arguments, timeout=1200, **cluster.environ)
            same = sum(written(folder)[job] == moment for job, moment in before.items())
            again = sum(begun(folder).values()) - sum(tried.values())
            print(f"{name} call: exit code {outcome.code}; {outcome.out.splitlines()[-1]}")
            print(f"  {again} jobs begun; {same} of {len(before)} finished results untouched; {account(folder)}")


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))

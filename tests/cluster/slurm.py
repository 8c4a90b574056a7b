"""A real Slurm of one node, in a folder of its own: munged, slurmctld and slurmd of Debian's packages, without systemd.

As a script it gives a shell's command such a cluster: `python tests/cluster/slurm.py <command> ...`
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_min_interval=100000
SlurmdTimeout=10
KillWait=5
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    absent = [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if shutil.which(name, path=PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "a Slurm of one's own needs root"


class Cluster:
    """The daemons, as a context; `environ` is what commands need to reach them.

    Args:
        folder: keys, sockets, state and logs.
        cpus: what the node says it has; a job takes one or more.
    """

    def __init__(self, folder: Path, cpus: int = 2):
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(host=host, folder=folder, cpus=cpus, ports=free_ports(2))
        (folder / "slurm.conf").write_text(text)
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=no\n")

    def __enter__(self) -> "Cluster":
        try:
            for name in DAEMONS:
                self.start(name)
            self.wait(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t"), "the node is not idle")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("scancel", "--signal=KILL", "--full", "--user=root")
        self.run("scancel", "--user=root")
        self.stop()

    def start(self, name: str) -> None:
        """Starts one daemon in the foreground of a process of ours."""
        folder = self.folder
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        munged = [f"--{option}={folder / file}" for option, file in {**files, "key-file": "munge.key"}.items()]
        options = {"munged": ["--foreground", "--force", *munged], "slurmctld": ["-D"], "slurmd": ["-D"]}[name]
        with (folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [shutil.which(name, path=PATH), *options],
                env=os.environ | self.environ,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        if name == "munged":
            self.wait((folder / "munge.socket").exists, "munged made no socket")

    def kill(self, name: str) -> None:
        """Kills a daemon as a crash would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes.pop(name).wait()

    def resume(self) -> None:
        """What an administrator does after a crash: a controller that lost its last seconds drains the node."""
        self.run("scontrol", "update", "NodeName=ALL", "State=RESUME")

    def stop(self) -> None:
        """Ends the daemons, the last one first."""
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, env=os.environ | self.environ, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def wait(self, condition: Callable[[], bool], complaint: str) -> None:
        """Until something is true; what the daemons said is told where it does not become true."""
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.[ol][uo][tg]")
                )
                raise TimeoutError(f"{complaint}:\n{logs}")
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a killed script takes its daemons along
    with tempfile.TemporaryDirectory() as place, Cluster(Path(place)) as cluster:
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | cluster.environ).returncode)

"""One process at a time in a run directory: a lock that a dead process does not keep.

The lock is a file `lock.<n>` that names its holder: host, boot, process namespace, pid and start of the process. It
appears in one piece by a hard link, which is atomic on network file systems too, and its holder touches it every few
seconds. Seen from the same machine the holder lives if its process does; seen from another one, if the last touch is
younger than `LEASE`, by the file server's clock. A dead holder's file is followed by the next number, so that two
processes that find it at once cannot both take its place.
"""

import json
import os
import random
import signal
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from engine.run import log

LEASE = 60.0
"""Seconds after which a silent holder on another machine counts as dead; it gives a sign every quarter of that."""


@dataclass(frozen=True)
class Holder:
    """A process, named so that no other one is taken for it.

    Args:
        host: the machine's name.
        space: where the pid means something: the boot of the machine and the process namespace.
        pid: the process.
        started: when it began, in ticks since the boot: a pid is given again.
    """

    host: str
    space: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def near(self) -> bool:
        """Whether its pid can be looked up from here."""
        return (self.host, self.space) == (socket.gethostname(), process_space())

    def alive(self) -> bool:
        """Whether the process runs; only for one that is near."""
        return process_start(self.pid) == self.started


class Held(Exception):
    """A living process works in the directory."""

    def __init__(self, holder: Holder):
        super().__init__(str(holder))
        self.holder = holder


class RunLock:
    """The lock of one directory, as a context; a thread renews it.

    Args:
        folder: the directory, made if need be.

    Raises:
        Held: on entering, while a living process holds it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._over = threading.Event()

    def __enter__(self) -> "RunLock":
        self.path = acquire(self.folder)
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._over.wait(LEASE / 4):
            try:
                os.utime(self.path)
            except FileNotFoundError:  # silent for longer than the lease, and somebody else went on
                log.error(f"{self.folder}: the lock was lost to another process; stopping")
                signal.raise_signal(signal.SIGTERM)
                return
            except OSError as error:  # a file server that is away for a moment: the lease says for how long
                log.warning(f"{self.path}: {error.strerror}")


def acquire(folder: Path) -> Path:
    """Takes the lock; raises Held while a living process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        found = locks(folder)
        refuse_living(folder, found)
        path = folder / f"lock.{max(found, default=0) + 1}"
        if not linked(path):
            continue
        others = {n: other for n, other in locks(folder).items() if other != path}
        try:
            refuse_living(folder, others)
        except Held:  # two began at once: both step back, and one comes again first
            path.unlink(missing_ok=True)
            time.sleep(random.uniform(0.01, 0.1))
            continue
        for other in others.values():
            other.unlink(missing_ok=True)
        return path


def holder(folder: Path) -> Holder | None:
    """The living process that holds the directory's lock, or None."""
    try:
        refuse_living(folder, locks(folder))
    except Held as held:
        return held.holder
    return None


def locks(folder: Path) -> dict[int, Path]:
    """The lock files of a directory by number."""
    return {int(path.name[5:]): path for path in folder.glob("lock.*") if path.name[5:].isdigit()}


def refuse_living(folder: Path, found: dict[int, Path]) -> None:
    """Raises Held for the first lock whose holder lives."""
    for path in found.values():
        try:
            text, touched = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            continue
        try:
            holder = Holder(**json.loads(text))
        except (ValueError, TypeError):  # torn, by a machine that went down: the lease decides
            holder = Holder("an unknown machine", "", 0, "")
        if holder.alive() if holder.near() else server_time(folder) - touched < LEASE:
            raise Held(holder)


def linked(path: Path) -> bool:
    """Makes the lock file with this process as its holder, in one piece; False if it is there already."""
    draft = path.with_name(f".lock-{uuid.uuid4().hex}")
    draft.write_text(json.dumps(asdict(this_process())))
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    finally:
        draft.unlink()


def server_time(folder: Path) -> float:
    """Now, by the clock of whoever keeps the folder: clocks of machines differ."""
    probe = folder / f".lock-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def this_process() -> Holder:
    """The holder that this process is."""
    return Holder(socket.gethostname(), process_space(), os.getpid(), process_start(os.getpid()) or "")


def process_space() -> str:
    """The boot of this machine and the process namespace; without /proc the name of the machine is all there is."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None if there is none. Without /proc: "" for one that runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""

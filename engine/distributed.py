"""Runs on several devices or nodes: the further processes of this machine, and what they must agree on.

Where torchrun or srun has started one process per device, nothing is started here. Else the first process checks the
config, builds everything, and only then starts the others with its very own `Run`: a mistake is found by one process
and told in one line, and no other process composes a config or names a directory. The others end when the first ends,
and it ends when one of them fails.
"""

import copy
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import FSDPStrategy, ParallelStrategy

from engine import ROOT
from engine.build import make
from engine.errors import UserError, user_errors
from engine.run import Run

GRACE = 15.0
"""Seconds that the first process has to end by itself after another has failed; a collective may never return."""


def start(run: Run, trainer: L.Trainer, data: L.LightningDataModule) -> None:
    """Starts the further processes of a run on this machine, if there are to be any; `run.close` ends them.

    Raises:
        UserError: the processes cannot share the batches, or do not fit those that torchrun or srun has started.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ParallelStrategy):
        return
    environment = strategy.cluster_environment
    with user_errors():
        environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    check(trainer, data)
    if trainer.num_devices > 1 and not environment.creates_processes_externally:
        run.others = Processes(run, trainer.num_devices, environment)


def check(trainer: L.Trainer, data: L.LightningDataModule) -> None:
    """Raises UserError for what does not work on this many processes."""
    environment, world = trainer.strategy.cluster_environment, trainer.num_devices * trainer.num_nodes
    if environment.creates_processes_externally and environment.world_size() != world:
        raise UserError(
            f"{environment.world_size()} processes were started for trainer.devices={trainer.num_devices} on each of "
            f"{trainer.num_nodes} nodes: start one per device (srun --ntasks-per-node={trainer.num_devices})"
        )
    if data.batch_size % world:
        below = data.batch_size // world * world
        near = " or ".join(str(size) for size in (below, below + world) if size)
        raise UserError(
            f"data.batch_size={data.batch_size} cannot be shared out among {world} processes: choose {near}"
        )
    for split in ("train", "val", "test"):
        if len(getattr(data, split)) < world:
            raise UserError(f"the {split} split has {len(getattr(data, split))} samples for {world} processes")
    meeting = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys()
    if trainer.num_nodes > 1 and not meeting and not environment.creates_processes_externally:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: start with srun or torchrun, or set MASTER_ADDR, MASTER_PORT and "
            "NODE_RANK on every node"
        )
    if sharded(trainer) and trainer.gradient_clip_val and trainer.gradient_clip_algorithm != "value":
        raise UserError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val}: FSDP cannot clip by norm; leave it null, or add "
            "+trainer.gradient_clip_algorithm=value"
        )


def finish(run: Run, trainer: L.Trainer) -> None:
    """All processes of a run have come to its end, and what the first one writes is written."""
    trainer.strategy.barrier()
    if run.others is not None:
        run.others.finished = True


class Processes:
    """The further processes of a run on this machine, each `python -m engine.worker` with the run on its stdin.

    Args:
        run: what they run.
        count: processes on this machine, this one included.
        environment: says where they meet.
    """

    def __init__(self, run: Run, count: int, environment: ClusterEnvironment):
        self.finished = False
        self._stopped = threading.Event()
        self._before = dict(os.environ)
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(free_port()))
        os.environ["LOCAL_RANK"] = "0"  # Lightning then takes the processes as started
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.processes, self.errors = [], []
        for rank in range(1, count):
            self.errors.append(tempfile.TemporaryFile())  # noqa: SIM115 - read when the process has failed
            process = subprocess.Popen(
                [sys.executable, "-m", "engine.worker"],
                env=os.environ | {"LOCAL_RANK": str(rank), "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self.errors[-1],
                start_new_session=True,  # Ctrl-C is the first process's to handle
            )
            self.processes.append(process)
            pickle.dump(run, process.stdin)
            process.stdin.flush()  # it stays open: a process whose stdin ends knows that the first one is gone
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Ends them, tells what one of them failed of, and leaves this process as it was."""
        self._stopped.set()
        error = sys.exception()
        if not self.finished and not isinstance(error, UserError | SystemExit | KeyboardInterrupt):
            self._tell()
        self._kill(patience=GRACE if self.finished else 0.0)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
            if name in self._before:
                os.environ[name] = self._before[name]

    def _watch(self) -> None:
        """Ends this process if another one has failed and this one, waiting for it, cannot notice."""
        while not self._stopped.wait(0.5):
            if any(process.poll() for process in self.processes):
                if not self._stopped.wait(GRACE):
                    self._tell()
                    self._kill()
                    os._exit(1)
                return

    def _tell(self) -> None:
        """What the first process that failed by itself wrote to its stderr."""
        for rank, (process, errors) in enumerate(zip(self.processes, self.errors, strict=True), start=1):
            if process.poll():
                errors.seek(0)
                text = errors.read().decode(errors="replace").strip()
                last = text.splitlines()[-1] if text else "no message"
                print(text, file=sys.stderr)
                print(f"runner: process {rank} ended with exit code {process.returncode}: {last}", file=sys.stderr)
                return

    def _kill(self, patience: float = 0.0) -> None:
        end = time.monotonic() + patience
        for process in self.processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def with_strategy(settings: dict[str, Any]) -> dict[str, Any]:
    """The trainer's settings, with the strategy built where they state its arguments.

    Raises:
        UserError: a strategy that starts its processes by other means, or wrong arguments.
    """
    strategy = settings.get("strategy")
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy={strategy}: runner starts its processes itself; choose trainer=ddp")
    return settings | {"strategy": make(strategy)} if isinstance(strategy, dict) else settings


def sharded(trainer: L.Trainer) -> bool:
    """Whether no process holds the whole model while it trains."""
    return isinstance(trainer.strategy, FSDPStrategy)


def trained(trainer: L.Trainer, task: L.LightningModule) -> L.LightningModule:
    """What the trainer may wrap: the task, or a copy of it where wrapping takes its weights apart."""
    return copy.deepcopy(task) if sharded(trainer) else task


def for_evaluation(config: dict[str, Any]) -> dict[str, Any]:
    """The config whose trainer holds a whole model in every process, as tests and figures need it."""
    strategy = config["trainer"].get("strategy")
    name = strategy.get("_target_", "") if isinstance(strategy, dict) else str(strategy)
    return config | {"trainer": config["trainer"] | {"strategy": "ddp"}} if "fsdp" in name.lower() else config

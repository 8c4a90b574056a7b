"""One run: its config, directory and names, handed to every mode."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

log = logging.getLogger("runner")


@dataclass
class Run:
    """What a mode is given.

    Args:
        cfg: the composed config, without the `hydra` block.
        dir: the run directory; made when the first file is written.
        choices: the chosen option of every group: `{"model": "itransformer", ...}`.
        overrides: the command line's overrides, groups included.
        sweep: the sweep's name, or None for a single run.
        fingerprint: see `engine.fingerprint`; known once the config is checked.
        others: the further processes of a run on several devices, see `engine.distributed`.
    """

    cfg: DictConfig
    dir: Path
    choices: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    sweep: str | None = None
    fingerprint: str = ""
    others: Any = None

    def plain(self) -> dict[str, Any]:
        """The resolved config as plain Python values."""
        return OmegaConf.to_container(self.cfg, resolve=True)

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints; one of several on the same run does, the one of rank zero."""
        trainer = self.cfg.trainer
        if trainer.devices == 1 and trainer.get("num_nodes", 1) == 1:
            return True
        ranks = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
        return all(os.environ.get(rank, "0") == "0" for rank in ranks)

    def open(self) -> None:
        """Starts the directory: `config.yaml` and `run.log`."""
        if not self.leads:
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "config.yaml").write_text(OmegaConf.to_yaml(self.cfg, resolve=True))
        handler = logging.FileHandler(self.dir / "run.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        self._handler = handler

    def close(self) -> None:
        """Ends `run.log` and further processes; leaves no directory behind where nothing was written."""
        others, self.others = self.others, None
        if others is not None:
            others.stop()
        handler = self.__dict__.pop("_handler", None)
        if handler:
            log.removeHandler(handler)
            handler.close()
        path = self.dir
        with suppress(FileNotFoundError):  # another process of the run was faster
            while path.is_dir() and not any(path.iterdir()) and path != Path.cwd() and path != path.parent:
                path.rmdir()
                path = path.parent

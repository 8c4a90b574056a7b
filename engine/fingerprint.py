"""A run's fingerprint: what it computes, and on which data; not where it writes or what it logs to."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from engine import ROOT

IGNORED = ("hydra", "logger", "output", "path", "debug", "paper", "rerun", "retries", "tags", "bench")
"""Top-level keys that change nothing in the numbers of a run."""


def fingerprint(cfg: DictConfig) -> str:
    """Eight hex digits of the resolved config and the data's identity; places and how often to save do not count."""
    cfg = cfg.copy()
    identity = data_identity(OmegaConf.to_container(cfg.data, resolve=True))
    with open_dict(cfg):
        for key in IGNORED:
            cfg.pop(key, None)
        if "root" in cfg.data:
            cfg.data.root = None
        cfg.trainer.pop("checkpoint_seconds", None)
    return digest({"config": OmegaConf.to_container(cfg, resolve=True), "data": identity})


def data_identity(data: Mapping[str, Any]) -> str | None:
    """The sha256 of the data set's files; None where they are not on this machine."""
    from tasks.sources import identity

    return identity(data)


def digest(value: Any) -> str:
    """Eight hex digits of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def code_hash() -> str:
    """Eight hex digits of this project's own Python files."""
    digest = hashlib.sha256((ROOT / "runner.py").read_bytes())
    for package in ("engine", "tasks", "models", "kernels"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]

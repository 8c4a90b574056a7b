"""What is found in training data once and used again: a cache whose keys are contents.

Notable: the key is a hash of the data, the settings and the code that looks, so a file of another split, set or version
is never read; every file records what it was made from, and one that does not say what its name says is refused.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.sources import cache_folder

log = logging.getLogger(__name__)

Found = dict[str, Tensor]


def cached(name: str, settings: Mapping[str, Any], data: Sequence[Tensor], make: Callable[[], Found]) -> Found:
    """`make()`, or what an earlier call with the same settings, data and code returned.

    Raises:
        ValueError: the stored file was made from something else than its name says; names both hashes.
    """
    made_from = {"name": name, "settings": dict(settings), "data": contents(data), "code": code()}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
    path = cache_folder() / "artefacts" / f"{name}-{key[:16]}.pt"
    if (stored := read(path)) is not None:
        if stored["key"] != key:
            raise ValueError(f"{path} was made from other data or settings (key {stored['key'][:16]}): delete it")
        log.info("%s: taken from %s", name, path)
        return stored["found"]
    began = time.perf_counter()
    found = make()
    log.info("%s: found in %.1f s", name, time.perf_counter() - began)
    write(path, {"key": key, "made_from": made_from, "found": found})
    return found


def contents(tensors: Sequence[Tensor]) -> str:
    """sha256 (hex) of shapes, types and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def code() -> str:
    """sha256 (hex) of the code of models and kernels, which does the finding."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in ("models", "kernels"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read(path: Path) -> dict[str, Any] | None:
    """A stored file; None where there is none, or what is there is torn."""
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # a torn file fails in many ways
        log.warning("%s cannot be read (%s): made anew", path, type(error).__name__)
        return None


def write(path: Path, stored: dict[str, Any]) -> None:
    """Stores a file in one piece. A folder that cannot be written to is no error: the next run looks again."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(stored, part)
        os.replace(part, path)
    except OSError as error:
        log.warning("%s cannot be written (%s)", path, error)
    finally:
        part.unlink(missing_ok=True)

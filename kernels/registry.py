"""Picks, for every op, the backend that computes it.

An op is a folder of this package; a backend is a module in it (`kernels/<op>/<backend>.py`) that has

    <op>(...)                        the op's own signature, differentiable
    supports(device, dtype) -> bool  whether it runs on this `torch.device` with tensors of this `torch.dtype`
    REQUIRES                         what it takes to be supported, in words ("a CUDA device")
    PRIORITY                         `auto` takes the supported backend with the highest one
    NAME                             only where the backend's name is not the file's (sdpa.py is called `torch`)

Files are found by being there, so adding a backend touches no other file. One whose import fails (an optional package
is missing) is only unavailable: the reason is shown to whoever asks for it. `triton` is a valid name everywhere; where
an op has no triton.py, or the tensors are not on a GPU, the best other backend stands in with one warning (with
`strict`: an error).

A choice is made once per (op, device, dtype) and then looked up in a dictionary. `choices` says what they are, and
`recording` which ops a computation calls; the caller logs that.
"""

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

logger = logging.getLogger("runner")

NAMES = ("reference", "torch", "triton")  # valid for every op, there or not

_wanted: dict[str, str] = {}  # op -> backend; an op that is not in it is `auto`
_strict = False
_resolved: dict[tuple[str, str, torch.dtype], Callable] = {}
_warned: set[str] = set()
_called: set[str] | None = None  # the ops called within `recording`


@dataclass(frozen=True)
class Backend:
    name: str
    function: Callable
    supports: Callable[[torch.device, torch.dtype], bool]
    requires: str
    priority: int


@cache
def ops() -> tuple[str, ...]:
    """The names of all ops: the folders of this package."""
    here = Path(__file__).parent
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(here)]) if module.ispkg))


@cache
def backends(op: str) -> tuple[dict[str, Backend], dict[str, str]]:
    """(available backends by name, why each of the others is not available) of an op, found by file name."""
    found, missing = {}, {}
    for module_info in pkgutil.iter_modules([str(Path(__file__).parent / op)]):
        try:
            module = importlib.import_module(f"kernels.{op}.{module_info.name}")
        except ImportError as error:
            missing[module_info.name] = str(error)
            continue
        name = getattr(module, "NAME", module_info.name)
        found[name] = Backend(name, getattr(module, op), module.supports, module.REQUIRES, module.PRIORITY)
    return found, missing


def configure(config: Mapping) -> None:
    """Sets the backend of each op for this process: `{"attention": "auto", "selective_scan": "torch"}`.

    Ops that are not named go back to `auto`, `strict` to False. An unknown op or backend is a ValueError that names the
    valid ones; with `strict`, so is a backend that does not exist here.
    """
    global _strict
    _wanted_new, strict = _checked(config, _strict_default=False)
    _wanted.clear()
    _wanted.update(_wanted_new)
    _strict = strict
    _resolved.clear()


@contextmanager
def using(**config) -> Iterator[None]:
    """Within the block the named ops use these backends: `with kernels.using(attention="reference"):`."""
    global _strict
    before, strict_before = dict(_wanted), _strict
    changed, _strict = _checked(config, _strict_default=_strict)
    _wanted.update(changed)
    _resolved.clear()
    try:
        yield
    finally:
        _wanted.clear()
        _wanted.update(before)
        _strict = strict_before
        _resolved.clear()


@contextmanager
def recording() -> Iterator[set[str]]:
    """Gathers the names of the ops that are called within the block: `with kernels.recording() as called:`."""
    global _called
    before, _called = _called, set()
    try:
        yield _called
    finally:
        _called = before


def choices(
    device: torch.device | str, dtype: torch.dtype = torch.float32, among: Iterable[str] | None = None
) -> dict[str, str]:
    """What each op (or those `among` them) resolves to on this device: `{"attention": "torch", ...}`.

    It also makes these choices, for all floating-point dtypes: call it before torch.compile, which cannot trace them.
    With `strict`, a wanted backend that does not support the device is a ValueError.
    """
    device = torch.device(device)
    asked = [op for op in ops() if among is None or op in among]
    for op in asked:
        for each in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            resolve(op, device, each)
    return {op: _choose(op, device, dtype).name for op in asked}


def resolve(op: str, device: torch.device, dtype: torch.dtype) -> Callable:
    """The function that computes `op` on tensors of this device and dtype."""
    if _called is not None:
        _called.add(op)
    key = (op, device.type, dtype)
    function = _resolved.get(key)
    if function is None:
        function = _resolved[key] = _choose(op, device, dtype).function
    return function


def _checked(config: Mapping, _strict_default: bool) -> tuple[dict[str, str], bool]:
    wanted = dict(config)
    strict = wanted.pop("strict", _strict_default)
    if not isinstance(strict, bool):
        raise ValueError(f"kernel.strict={strict!r} must be true or false")
    for op, name in wanted.items():
        if op not in ops():
            raise ValueError(f"kernel.{op}: there is no such op; the ops are {', '.join(ops())}")
        found, missing = backends(op)
        valid = ["auto", *dict.fromkeys([*NAMES, *found, *missing])]
        if name not in valid:
            raise ValueError(f"kernel.{op}={name}: unknown backend; choose from {', '.join(valid)}")
        if strict and name != "auto" and name not in found:
            raise ValueError(_refusal(op, name, found, missing) + "; choose one of these, or set kernel.strict=false")
    return wanted, strict


def _choose(op: str, device: torch.device, dtype: torch.dtype) -> Backend:
    found, missing = backends(op)
    usable = [backend for backend in found.values() if backend.supports(device, dtype)]
    best = max(usable, key=lambda backend: backend.priority)  # `reference` supports everything
    name = _wanted.get(op, "auto")
    chosen = next((backend for backend in usable if backend.name == name), None)
    if chosen is None and name != "auto":
        why = _refusal(op, name, {b.name: b for b in usable}, missing)
        if name in found:
            why = f"kernel.{op}={name} needs {found[name].requires}, not {device.type} with {dtype}"
        if _strict:
            raise ValueError(f"{why}; set kernel.{op}={best.name} (or auto), or kernel.strict=false")
        _warn(f"{why}; using {best.name} instead")
    return chosen or best


def _refusal(op: str, name: str, found: Mapping, missing: Mapping[str, str]) -> str:
    reason = f" ({missing[name]})" if name in missing else ""
    return f"kernel.{op}={name}: no such backend is available here{reason}; available are {', '.join(sorted(found))}"


def _warn(message: str) -> None:
    """Warns the first time a message comes up in this process."""
    if message not in _warned:
        _warned.add(message)
        logger.warning(message)

"""Picks, for every op, the backend that computes it.

An op is a folder of this package; a backend is a module in it (`kernels/<op>/<backend>.py`) that has

    <op>(...)                        the op's own signature, differentiable
    supports(device, dtype) -> bool  whether it runs on this `torch.device` with tensors of this `torch.dtype`
    REQUIRES                         what it takes to be supported, in words ("a CUDA device")
    PRIORITY                         `auto` takes the supported backend with the highest one
    NAME                             only where the backend's name is not the file's (sdpa.py is called `torch`)
    fits(...) -> str                 only where it cannot do every call: given the op's arguments, names what it cannot

(names that begin with `_` are not backends: `_cases.py` holds the shapes that the op is checked and timed on).

Files are found by being there, so adding a backend touches no other file. One whose import fails (an optional package
is missing) is only unavailable: the reason is shown to whoever asks for it. `triton` is a valid name everywhere; where
an op has no triton.py, or the tensors are not on a GPU, the best other backend stands in with one warning (with
`strict`: an error).

A choice is made once per (op, device, dtype) and then looked up in a dictionary; torch.compile takes it for a constant.
`auto` passes over a backend that fails its self-check and, on a GPU (or with `measure`), times the others on the first
call of every shape, see tuning.py. `choices` says what is chosen, and `recording` which ops a computation calls; the
caller logs that.
"""

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kernels import tuning

logger = logging.getLogger("runner")

NAMES = ("reference", "torch", "triton")  # valid for every op, there or not

_wanted: dict[str, str] = {}  # op -> backend; an op that is not in it is `auto`
_strict = False
_measure: bool | None = None  # whether `auto` times the backends; None: on a GPU
_warned: set[str] = set()
_called: set[str] | None = None  # the ops called within `recording`
_fastest: dict[tuple, str] = {}  # (op, shapes, dtypes, options) -> what was the fastest of its backends


@dataclass(frozen=True)
class Backend:
    name: str
    function: Callable
    supports: Callable[[torch.device, torch.dtype], bool]
    requires: str
    priority: int
    fits: Callable[..., str] | None = None


_resolved: dict[tuple[str, str, torch.dtype], str] = {}
_loaded: dict[str, dict[str, Backend]] = {}  # what `backends` found: a plain dictionary, which torch.compile can read


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
        if module_info.name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"kernels.{op}.{module_info.name}")
        except ImportError as error:
            missing[module_info.name] = str(error)
            continue
        name = getattr(module, "NAME", module_info.name)
        found[name] = Backend(
            name, getattr(module, op), module.supports, module.REQUIRES, module.PRIORITY, getattr(module, "fits", None)
        )
    _loaded[op] = found
    return found, missing


def configure(config: Mapping) -> None:
    """Sets the backend of each op for this process: `{"attention": "auto", "selective_scan": "torch"}`.

    Ops that are not named go back to `auto`, `strict` to False, `measure` to None. An unknown op or backend is a
    ValueError that names the valid ones; with `strict`, so is a backend that does not exist here.
    """
    _set(*_checked(config, strict=False, measure=None), keep=False)


@contextmanager
def using(**config) -> Iterator[None]:
    """Within the block the named ops use these backends: `with kernels.using(attention="reference"):`."""
    before = dict(_wanted), _strict, _measure
    _set(*_checked(config, strict=_strict, measure=_measure), keep=True)
    try:
        yield
    finally:
        _set(*before, keep=False)


def _set(wanted: Mapping[str, str], strict: bool, measure: bool | None, keep: bool) -> None:
    global _strict, _measure
    if not keep:
        _wanted.clear()
    _wanted.update(wanted)
    _strict, _measure = strict, measure
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

    With `strict`, a wanted backend that does not support the device is a ValueError.
    """
    device = torch.device(device)
    asked = [op for op in ops() if among is None or op in among]
    return {op: _choose(op, device, dtype).name for op in asked}


def call(op: str, *args: Any, **options: Any) -> Any:
    """Computes `op` with the backend for its first argument, a tensor; every op's public function ends here.

    A backend that cannot do this very call (`fits`) is stood in for by the next best one, with one warning where it was
    asked for by name (with `strict`: an error).
    """
    lead = args[0]
    name = resolve(op, lead.device.type, lead.dtype)
    backend = _loaded[op][name]
    if backend.fits is not None and (reason := backend.fits(*args, **options)):
        backend = _stand_in(op, backend, reason, args, options)
    if (_measure or (_measure is None and lead.is_cuda)) and not torch.compiler.is_compiling():
        backend = _measured(op, backend, args, options)
    return backend.function(*args, **options)


def _measured(op: str, backend: Backend, args: tuple, options: Mapping) -> Backend:
    """The fastest backend for this call, where the choice is `auto` and there is one."""
    if _wanted.get(op, "auto") != "auto" or args[0].device.type == "meta":
        return backend
    values = (*args, *options.values())
    parts = ((v.shape, v.dtype, v.requires_grad) if isinstance(v, torch.Tensor) else _hashable(v) for v in values)
    key = (op, args[0].device.type, torch.is_grad_enabled(), *options, *parts)
    name = _fastest.get(key)
    if name is None:
        able = {b.name: b.function for b in _able(op, args, options) if b.name != "reference"}
        name = tuning.fastest(op, able, args, dict(options)) if len(able) > 1 else backend.name
        _fastest[key] = name
    return _loaded[op][name]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | tuple | None) else type(value)


@torch.compiler.assume_constant_result
def resolve(op: str, device: str, dtype: torch.dtype) -> str:
    """The name of the backend that computes `op` on tensors of this kind of device and this dtype."""
    if _called is not None:
        _called.add(op)
    key = (op, device, dtype)
    name = _resolved.get(key)
    if name is None:
        name = _resolved[key] = _choose(op, torch.device(device), dtype).name
    return name


def _checked(config: Mapping, strict: bool, measure: bool | None) -> tuple[dict[str, str], bool, bool | None]:
    """(wanted backends, strict, measure) of a config; the latter two as given where it does not name them."""
    wanted = dict(config)
    strict, measure = wanted.pop("strict", strict), wanted.pop("measure", measure)
    if not isinstance(strict, bool):
        raise ValueError(f"kernel.strict={strict!r} must be true or false")
    if not isinstance(measure, bool | None):
        raise ValueError(f"kernel.measure={measure!r} must be true, false, or null (on a GPU)")
    for op, name in wanted.items():
        if op not in ops():
            raise ValueError(f"kernel.{op}: there is no such op; the ops are {', '.join(ops())}")
        found, missing = backends(op)
        valid = ["auto", *dict.fromkeys([*NAMES, *found, *missing])]
        if name not in valid:
            raise ValueError(f"kernel.{op}={name}: unknown backend; choose from {', '.join(valid)}")
        if strict and name != "auto" and name not in found:
            raise ValueError(_refusal(op, name, found, missing) + "; choose one of these, or set kernel.strict=false")
    return wanted, strict, measure


def _choose(op: str, device: torch.device, dtype: torch.dtype) -> Backend:
    found, missing = backends(op)
    usable = [backend for backend in found.values() if backend.supports(device, dtype)]
    best = next(b for b in _ranked(usable, device) if _passes(op, b, device, dtype))
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


def _ranked(usable: list[Backend], device: torch.device) -> list[Backend]:
    """The best first, `reference`, which supports everything, among them. Triton's interpreter is nobody's choice."""
    allowed = [backend for backend in usable if device.type == "cuda" or backend.name != "triton"]
    return sorted(allowed, key=lambda backend: -backend.priority)


def _able(op: str, args: tuple, options: Mapping) -> Iterator[Backend]:
    """The backends that can do this call and compute it right, the best first."""
    device, dtype = args[0].device, args[0].dtype
    usable = [b for b in backends(op)[0].values() if b.supports(device, dtype)]
    for backend in _ranked(usable, device):
        if not (backend.fits and backend.fits(*args, **options)) and _passes(op, backend, device, dtype):
            yield backend


def _passes(op: str, backend: Backend, device: torch.device, dtype: torch.dtype) -> bool:
    return tuning.passes(op, backend.name, backend.function, device, dtype)


def _stand_in(op: str, backend: Backend, reason: str, args: tuple, options: Mapping) -> Backend:
    """The best of the others that can do this call."""
    other = next(_able(op, args, options))
    if _wanted.get(op) == backend.name:
        if _strict:
            raise ValueError(f"kernel.{op}={backend.name} does not do {reason}; set kernel.{op}={other.name} (or auto)")
        _warn(f"kernel.{op}={backend.name} does not do {reason}; using {other.name} for that")
    return other


def _refusal(op: str, name: str, found: Mapping, missing: Mapping[str, str]) -> str:
    reason = f" ({missing[name]})" if name in missing else ""
    return f"kernel.{op}={name}: no such backend is available here{reason}; available are {', '.join(sorted(found))}"


def _warn(message: str) -> None:
    """Warns the first time a message comes up in this process."""
    if message not in _warned:
        _warned.add(message)
        logger.warning(message)

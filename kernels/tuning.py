"""How `auto` knows: each backend is checked against the reference once; on a GPU the rest are timed on a call like it.

Both answers are kept per machine in `$XDG_CACHE_HOME/runner/kernels.json` (or ~/.cache), under the device, the versions
of torch and triton and the code of this package, so that a choice is made once and stays: the same command picks the
same kernels. A check that raises an error (of memory, say) is made again by the next process. Backends are timed
forward and backward, as the call asks for gradients or not.
"""

import hashlib
import importlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from kernels import cases

logger = logging.getLogger("runner")

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of the largest value of a result: a self-check finds wrong kernels, the tests find imprecise ones."""
WARMUP, REPEATS = 2, 5

_known: dict[str, Any] | None = None
_passing: dict[str, Any] = {}  # answers that only this process goes by


def cache_file() -> Path:
    """Where answers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runner" / "kernels.json"


def passes(op: str, backend: str, function: Callable, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a backend computes the op's CHECK case as the reference does, outputs and gradients."""
    absent = device.type == "cuda" and not torch.cuda.is_available()
    traced = type(torch.empty(())) is not Tensor  # within torch.compile tensors are fake: nothing can be compared
    if backend == "reference" or device.type == "meta" or absent or traced or dtype not in TOLERANCE:
        return True
    key = f"check {signature(op, device)} {backend} {dtype}"
    answer = remembered(key)
    if answer is None:
        answer = remember(key, *check(op, function, device, dtype))
        if not answer:
            logger.warning(f"kernel.{op}={backend} fails its self-check on {device.type} with {dtype}: not used")
    return answer


def check(
    op: str, function: Callable, device: torch.device, dtype: torch.dtype, case: cases.Case | None = None
) -> tuple[bool, bool]:
    """Runs a case (CHECK) by `function` and, in float64, by the reference: (whether they agree, whether both ran)."""
    reference = getattr(importlib.import_module(f"kernels.{op}.reference"), op)
    try:
        with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
            args, options = (case or cases.of(op).CHECK).make(device, dtype)
            ours = cases.outputs_and_gradients(function, *cases.detached(args, options))
            exact = cases.outputs_and_gradients(reference, *cases.detached(args, options, torch.float64))
    except Exception as error:  # whatever a kernel that does not work here raises
        logger.debug(f"self-check of {op}: {error}")
        return False, False
    ours, exact = ([y.detach() for y in results] for results in (ours, exact))
    agree = len(ours) == len(exact) and all(
        bool(torch.isfinite(mine).equal(torch.isfinite(true)))
        and bool((mine.double() - true).nan_to_num(0, 0, 0).abs().max() <= TOLERANCE[dtype] * (1e-3 + finite_max(true)))
        for mine, true in zip(ours, exact, strict=True)
    )
    return agree, True


def finite_max(x: Tensor) -> float:
    """The largest finite absolute value."""
    return float(x.nan_to_num(0, 0, 0).abs().max()) if x.numel() else 0.0


def fastest(op: str, candidates: dict[str, Callable], args: tuple, options: dict[str, Any]) -> str:
    """The name of the candidate that is fastest on a call like this one, remembered or timed now."""
    mode = "training" if torch.is_grad_enabled() else "forward"
    key = f"time {signature(op, args[0].device)} {','.join(sorted(candidates))} {mode} {shape_of(args, options)}"
    answer = remembered(key)
    if answer is None:
        seconds = {name: time_of(function, args, options) for name, function in candidates.items()}
        answer = min(seconds, key=seconds.__getitem__)  # the first, the best by priority, where all fail
        remember(key, answer, lasting=float("inf") not in seconds.values())  # memory may have been short
        each = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in sorted(seconds.items(), key=lambda item: item[1]))
        logger.info(f"kernel.{op}=auto takes {answer} for {shape_of(args, options)}: {each}")
    return answer


def time_of(function: Callable, args: tuple, options: dict[str, Any], repeats: int = REPEATS) -> float:
    """Median seconds of a call, with its backward pass where that will come; infinite where it fails."""
    args, options = cases.detached(args, options)
    device = args[0].device
    training = torch.is_grad_enabled()

    def action() -> Any:
        return cases.outputs_and_gradients(function, args, options) if training else function(*args, **options)

    times = []
    try:
        for turn in range(WARMUP + repeats):
            seconds = timed(action, device)
            if turn >= WARMUP:
                times.append(seconds)
    except (RuntimeError, ValueError, NotImplementedError) as error:  # out of memory, a size it cannot do
        logger.debug(f"timing: {error}")
        return float("inf")
    return median(times)


def timed(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one action, by events on a GPU."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        action()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def shape_of(args: tuple, options: dict[str, Any]) -> str:
    """What a call's speed depends on, in words: `(2, 8, 1024, 64) bfloat16 grad, ..., causal=True`."""

    def words(value: Any) -> str:
        if isinstance(value, Tensor):
            kind = str(value.dtype).removeprefix("torch.") + (" grad" if value.requires_grad else "")
            return f"{tuple(value.shape)} {kind}"
        return str(value) if isinstance(value, int | float | bool | str | None | tuple) else type(value).__name__

    named = [f"{name}={words(value)}" for name, value in options.items() if value is not None]
    return ", ".join([*(words(value) for value in args), *named])


def signature(op: str, device: torch.device) -> str:
    """The op, the device, the versions and the code: what an answer holds for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{op} {code()} {name} torch {torch.__version__} triton {triton_version()}"


@cache
def code() -> str:
    """Eight hex digits of this package's files: ops use each other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


@cache
def triton_version() -> str:
    """Or `none`."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"


def remembered(key: str) -> Any:
    """The answer to a question of before, or None."""
    global _known
    if _known is None:
        try:
            _known = json.loads(cache_file().read_text())
        except (OSError, ValueError):
            _known = {}
    return _passing.get(key, _known.get(key))


def remember(key: str, answer: Any, lasting: bool = True) -> Any:
    """Keeps an answer, for this process at least; what others have written meanwhile stays."""
    global _known
    if not lasting:
        _passing[key] = answer
        return answer
    path, mine = cache_file(), (_known or {}) | {key: answer}
    _known = None
    remembered(key)  # reads the file anew
    _known = _known | mine
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(_known, file, indent=0)
        os.replace(file.name, path)
    except OSError as error:
        logger.debug(f"{path}: {error}")
    return answer

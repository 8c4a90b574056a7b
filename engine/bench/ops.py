"""The time of one op's backends and of its public rivals, over a grid of shapes."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from engine.run import log
from kernels import cases
from kernels.registry import Backend, backends
from kernels.tuning import check, passes, timed

WARMUP = 3


@dataclass
class Row:
    """One backend on one shape.

    Args:
        what: the op, or the model.
        shape: in words.
        backend: its name; that of a public implementation for a rival.
        right: whether it computes what the reference does; None for a rival, which is not checked.
        forward_ms, training_ms: medians of forward, and of forward with backward; None where it failed or has none.
        memory_mb: the peak above what the arguments take, of a training step (of forward where there is none).
        tflops, gbs: rates of forward, from what the shape cannot do without.
        rival: the fastest public implementation, and how many times faster than it this one is, by training_ms where
            both have it.
    """

    what: str
    shape: str
    backend: str
    right: bool | None
    forward_ms: float | None = None
    training_ms: float | None = None
    memory_mb: float | None = None
    tflops: float | None = None
    gbs: float | None = None
    rival: str | None = None
    speedup: float | None = None


def time_op(op: str, shapes: str, device: torch.device, dtype: torch.dtype, wanted: str, repeats: int) -> list[Row]:
    """Rows of an op: each backend that is wanted (`auto`: all), then the op's public rivals."""
    made = []
    for case in getattr(cases.of(op), shapes):
        args, options = case.make(device, dtype)
        rows = []
        for backend in chosen(op, wanted, device, dtype, args, options):
            right = passes(op, backend.name, backend.function, device, dtype)
            if right and shapes == "CPU":  # the papers' shapes are too large for the reference
                right = check(op, backend.function, device, dtype, case)[0]
            row = Row(op, case.label, backend.name, right)
            if right:
                measure(row, backend.function, args, options, repeats)
            rows.append(row)
        for name, rival in cases.of(op).BASELINES.items():
            row = Row(op, case.label, name, None)
            measure(row, rival, args, options, repeats)
            if row.forward_ms is not None:
                rows.append(row)
        rate(rows, case)
        made += rows
        log.info(f"{op}, {case.label}: " + ", ".join(f"{r.backend} {ms(r)}" for r in rows))
    return made


def chosen(
    op: str, wanted: str, device: torch.device, dtype: torch.dtype, args: tuple, options: dict[str, Any]
) -> Iterator[Backend]:
    """The backends that are wanted and can do the call. Triton's interpreter is for tests, not for clocks."""
    for name, backend in backends(op)[0].items():
        if wanted not in ("auto", name) or (name == "triton" and device.type == "cpu"):
            continue
        if not backend.supports(device, dtype):
            log.info(f"{op}: {name} needs {backend.requires}")
        elif backend.fits is not None and (reason := backend.fits(*args, **options)):
            log.info(f"{op}: {name} does not do {reason}")
        else:
            yield backend


def measure(row: Row, function: Callable, args: tuple, options: dict[str, Any], repeats: int) -> None:
    """Fills in times and memory; leaves them out where the function fails on this shape."""
    device = args[0].device
    args, options = cases.detached(args, options)

    def step() -> Any:
        return cases.outputs_and_gradients(function, args, options)

    try:
        with torch.no_grad():
            row.forward_ms = 1e3 * clock(lambda: function(*args, **options), device, repeats)
        if any(True for _ in cases.leaves(args, options)):
            row.training_ms = 1e3 * clock(step, device, repeats)
        row.memory_mb = peak_bytes(step, device) / 2**20
    except Exception as error:  # a rival raises what it likes: out of memory, a size it cannot do, a missing kernel
        log.info(
            f"{row.what}, {row.shape}: {row.backend} fails: {str(error).splitlines()[0] if str(error) else error!r}"
        )


def clock(action: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of an action, once it is warm."""
    for _ in range(WARMUP):
        action()
    return median(timed(action, device) for _ in range(repeats))


def peak_bytes(action: Callable[[], Any], device: torch.device) -> int:
    """The most memory that an action holds at once beyond what was held before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it says on stderr that it starts, and that it stops
    with torch.autograd.profiler.profile(use_device=None, use_kineto=False, profile_memory=True) as profile:
        action()
    held = most = 0
    for event in sorted(profile.function_events, key=lambda event: event.time_range.end):
        held += event.self_cpu_memory_usage
        most = max(most, held)
    return most


def rate(rows: list[Row], case: cases.Case) -> None:
    """Rates, and speed-ups over the fastest rival (its name starts no backend of ours)."""
    for row in rows:
        if row.forward_ms:
            row.tflops = case.flops / row.forward_ms / 1e9 if case.flops else None
            row.gbs = case.bytes / row.forward_ms / 1e6 if case.bytes else None
    rivals = [row for row in rows if row.right is None]
    if not rivals:
        return
    fastest = min(rivals, key=lambda row: row.training_ms or row.forward_ms)
    for row in rows:
        pair = (fastest.training_ms, row.training_ms) if row.training_ms and fastest.training_ms else None
        pair = pair or (fastest.forward_ms, row.forward_ms)
        if row.right and all(pair):
            row.rival, row.speedup = fastest.backend, pair[0] / pair[1]


def ms(row: Row) -> str:
    """A row's time, or why there is none."""
    if row.right is False:
        return "WRONG"
    best = row.training_ms or row.forward_ms
    return "fails" if best is None else f"{best:.3g} ms"

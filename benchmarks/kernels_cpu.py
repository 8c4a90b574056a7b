"""Every op of `kernels` on the CPU: the torch backend against the reference, forward and backward, at laptop shapes.

`python benchmarks/kernels_cpu.py [op ...]`. One thread; the two take turns, so that a machine whose speed drifts treats
both alike. Prints medians; a ratio above 1 says that torch is faster. Ops that lack one of the two are left out.
"""

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from kernels.registry import backends, ops

PAIR = ("reference", "torch")


def normal(*shape: int) -> Tensor:
    """A normal tensor that asks for a gradient."""
    return torch.randn(*shape).requires_grad_()


def scan(B: int, T: int, C: int, n: int) -> tuple[list[Tensor], dict]:
    """The arguments of a selective scan with D and z."""
    delta = F.softplus(torch.randn(B, T, C) - 2).requires_grad_()
    A = -torch.arange(1.0, n + 1).repeat(C, 1)
    return [
        normal(B, T, C),
        delta,
        A.requires_grad_(),
        normal(B, T, n),
        normal(B, T, n),
        normal(C),
        normal(B, T, C),
    ], {}


def joint(B: int, S: int, d: int, e: int, P: int) -> tuple[list[Tensor], dict]:
    """The arguments of the joint attention with two streams of e values."""
    return [*(normal(B, S, d) for _ in range(4)), normal(B, S, e), normal(B, S, e)], {"group": P}


CASES: list[tuple[str, str, Callable[[], tuple[list[Tensor], dict]]]] = [  # op, label, () -> (arguments, options)
    ("attention", "B 32, h 8, T 18, d 16", lambda: ([normal(32, 8, 18, 16) for _ in range(3)], {})),
    ("attention", "B 64, h 4, T 65, d 16", lambda: ([normal(64, 4, 65, 16) for _ in range(3)], {})),
    (
        "attention",
        "B 16, h 4, T 128, d 16, causal",
        lambda: ([normal(16, 4, 128, 16) for _ in "qkv"], {"causal": True}),
    ),
    ("joint_local_global_attention", "B 8, S 399, d 32, e 2 x 64, P 64", lambda: joint(8, 399, 32, 64, 64)),
    ("joint_local_global_attention", "B 1, S 1600, d 32, e 2 x 64, P 64", lambda: joint(1, 1600, 32, 64, 64)),
    ("joint_local_global_attention", "B 1, S 2000, d 128, e 2 x 256, P 256", lambda: joint(1, 2000, 128, 256, 256)),
    ("selective_scan", "B 32, T 21, C 128, n 16", lambda: scan(32, 21, 128, 16)),
    ("selective_scan", "B 4, T 512, C 64, n 16", lambda: scan(4, 512, 64, 16)),
]


def seconds(op: str, backend: str, inputs: list[Tensor], options: dict) -> float:
    """Of one forward and backward pass."""
    function = getattr(import_module(f"kernels.{op}"), op)
    asked = [x for x in inputs if x.requires_grad]
    with kernels.using(**{op: backend}, strict=True):
        start = time.perf_counter()
        made = function(*inputs, **options)
        outputs = [made] if isinstance(made, Tensor) else [y for y in made if isinstance(y, Tensor) and y.requires_grad]
        torch.autograd.grad(outputs, asked, [torch.ones_like(y) for y in outputs], allow_unused=True)
        return time.perf_counter() - start


def compare(op: str, make: Callable[[], tuple[list[Tensor], dict]], repeats: int) -> list[float]:
    """Median milliseconds of reference and torch; the first turn warms up."""
    torch.manual_seed(0)
    inputs, options = make()
    turns = [[seconds(op, backend, inputs, options) for backend in PAIR] for _ in range(repeats + 1)]
    return [1000 * median(times) for times in zip(*turns[1:], strict=True)]


def main() -> None:
    """Prints a line per case as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", default=list(ops()), help="names of ops; all where none is given")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if unknown := [op for op in arguments.ops if op not in ops()]:
        parser.error(f"there is no op {', '.join(unknown)}; the ops are {', '.join(ops())}")
    torch.set_num_threads(1)
    print("| op | shape | reference ms | torch ms | ratio |\n| --- | --- | --- | --- | --- |")
    for op, label, make in CASES:
        if op in arguments.ops and set(PAIR) <= set(backends(op)[0]):
            reference, ours = compare(op, make, arguments.repeats)
            print(f"| {op} | {label} | {reference:.2f} | {ours:.2f} | {reference / ours:.2f} |", flush=True)
    if untimed := sorted(set(arguments.ops) - {op for op, *_ in CASES}):
        print(f"without a case: {', '.join(untimed)}")


if __name__ == "__main__":
    main()

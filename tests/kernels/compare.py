"""A backend against the reference of its op: outputs and all gradients, on the same tensors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.testing import assert_close

import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of the largest value of a result, by the dtype of the inputs."""
LOW_PRECISION = [torch.float32, torch.float16, torch.bfloat16]


def random(
    *shapes: Sequence[int], dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0
) -> list[Tensor]:
    """Normal tensors that ask for gradients, the same on every device."""
    rng = torch.Generator().manual_seed(seed)
    made = [scale * torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in shapes]
    return [x.to(DEVICE, dtype).requires_grad_() for x in made]


def run(
    op: str, backend: str, call: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Outputs of `call(*inputs)` and the gradients of those inputs that ask for one, with `op` by `backend`."""
    inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    with kernels.using(**{op: backend}, strict=True):
        outputs = call(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    asked = [x for x in inputs if x.requires_grad]
    upstream = [torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y).to(y.dtype) for y in outputs]
    return [*outputs, *(torch.autograd.grad(outputs, asked, upstream) if asked else ())]


def agrees(
    op: str,
    backend: str,
    call: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    factor: float = 1.0,
) -> None:
    """Asserts that `backend` gives what `reference` gives on the same numbers in float64.

    Errors count against the largest value of each result; `factor` widens the tolerance of the inputs' dtype.
    """
    floats = [x for x in inputs if x.is_floating_point()]
    tolerance = factor * TOLERANCE[floats[0].dtype]
    wide = [x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs]
    for ours, exact in zip(run(op, backend, call, inputs), run(op, "reference", call, wide), strict=True):
        assert ours.isfinite().equal(exact.isfinite())
        atol = tolerance * max(1e-3, exact[exact.isfinite()].abs().max().item() if exact.isfinite().any() else 1.0)
        assert_close(ours.double(), exact, rtol=0.0, atol=atol)


def compiles(op: str, backend: str, call: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> None:
    """Asserts that torch.compile takes `call` as one graph, forward and backward, and that it computes the same."""
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(run(op, backend, compiled, inputs), run(op, backend, call, inputs), strict=True):
        assert_close(ours, eager)

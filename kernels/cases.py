"""What an op is checked and timed on. `kernels/<op>/_cases.py` holds

CHECK: Case            a small one: a backend that does not compute it as the reference does is never chosen
CPU, GPU: list[Case]   the shapes that `runner mode=bench` times: those of the laptop presets, those of the papers
BASELINES: dict        name -> function of the same arguments: the strongest public implementations
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Arguments = tuple[tuple, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One call of an op.

    Args:
        label: the shape, in words.
        make: device, dtype -> (arguments, options) of the op.
        flops: floating-point operations of the forward pass that this case cannot do without.
        bytes: bytes of arguments and results of the forward pass in 16 bits, the least that must move.
    """

    label: str
    make: Callable[[torch.device, torch.dtype], Arguments]
    flops: float = 0.0
    bytes: float = 0.0


def of(op: str) -> ModuleType:
    """The `_cases` of an op."""
    return importlib.import_module(f"kernels.{op}._cases")


def normal(*shape: int, device: torch.device, dtype: torch.dtype, seed: int = 0, grad: bool = True) -> Tensor:
    """A normal tensor, the same on every device, drawn without touching the global generators."""
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return made.requires_grad_(grad)


def leaves(args: tuple, options: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of a call that ask for a gradient."""
    for value in (*args, *options.values()):
        if isinstance(value, Tensor) and value.requires_grad:
            yield value


def detached(args: tuple, options: dict[str, Any], dtype: torch.dtype | None = None) -> Arguments:
    """The same call with fresh leaves, floating-point ones in `dtype` where given."""

    def fresh(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        return value.detach().to(wanted, copy=True).requires_grad_(value.requires_grad)

    return tuple(fresh(v) for v in args), {k: fresh(v) for k, v in options.items()}


def outputs_and_gradients(function: Callable[..., Any], args: tuple, options: dict[str, Any]) -> list[Tensor]:
    """Floating-point outputs of a call, then the gradients of its leaves."""
    with torch.enable_grad():
        made = function(*args, **options)
        made = [made] if isinstance(made, Tensor) else [y for y in made if isinstance(y, Tensor)]
        made = [y for y in made if y.is_floating_point()]
        asked, ends = list(leaves(args, options)), [y for y in made if y.requires_grad]
        if not asked or not ends:
            return made
        upstream = [torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y).to(y.dtype) for y in ends]
        return [*made, *(g for g in torch.autograd.grad(ends, asked, upstream, allow_unused=True) if g is not None)]

"""Stripe attention in Triton: stripes are read from the map where they lie, LePE is added before the result is stored.

Kept for backward: q, k, v and the log-sum-exp. The kernels are in _forward.py and _backward.py.
"""

import torch
from torch import Tensor

from kernels import gpu
from kernels.stripe_attention._backward import backward
from kernels.stripe_attention._forward import forward
from kernels.stripe_attention._stripes import branches
from kernels.stripe_attention._tiles import like_heads_last

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs


def fits(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    size: tuple[int, int],
    stripe: int,
    lepe_weight: Tensor | None = None,
    lepe_bias: Tensor | None = None,
    pad: bool = False,
    scale: float | None = None,
) -> str:
    return f"head dimension {q.shape[-1]} (at most 256)" if q.shape[-1] > 256 else ""


def stripe_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    size: tuple[int, int],
    stripe: int,
    lepe_weight: Tensor | None = None,
    lepe_bias: Tensor | None = None,
    pad: bool = False,
    scale: float | None = None,
) -> Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _forward(q, k, v, lepe_weight, lepe_bias, *size, stripe, pad, scale)[0]


@torch.library.custom_op("runner::stripe_attention_forward", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    height: int,
    width: int,
    stripe: int,
    pad: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    h, d = q.shape[1], q.shape[3]
    y, lse = _outputs(q)
    taps = None if weight is None else weight.reshape(h, d, 9).contiguous()
    bias = None if bias is None else bias.reshape(h, d).contiguous()
    for branch in branches(h, (height, width), stripe, pad):
        s = branch.heads
        forward(
            *(x[:, s] for x in (q, k, v)),
            *(None if x is None else x[s] for x in (taps, bias)),
            y[:, s],
            lse[:, s],
            branch,
            (height, width),
            scale,
        )
    return y, lse


@_forward.register_fake
def _(q, k, v, weight, bias, height, width, stripe, pad, scale):
    return _outputs(q)


def _outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    return like_heads_last(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("runner::stripe_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    height: int,
    width: int,
    stripe: int,
    pad: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and, (h, 10, d), of LePE's taps and bias."""
    h, d = q.shape[1], q.shape[3]
    dq, dk, dv, lepe = _gradients(q, weight)
    taps = None if weight is None else weight.reshape(h, d, 9).contiguous()
    for branch in branches(h, (height, width), stripe, pad):
        s = branch.heads
        found = backward(
            *(x[:, s] for x in (grad, q, k, v)),
            None if taps is None else taps[s],
            *(x[:, s] for x in (lse, dq, dk, dv)),
            branch,
            (height, width),
            scale,
        )
        if found is not None:
            lepe[s] = found
    return dq, dk, dv, lepe


@_backward.register_fake
def _(grad, q, k, v, weight, lse, height, width, stripe, pad, scale):
    return _gradients(q, weight)


def _gradients(q: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h, d = (0, 0) if weight is None else q.shape[1::2]
    return *(like_heads_last(q) for _ in range(3)), q.new_empty(h, 10, d, dtype=torch.float32)


def _setup(ctx, inputs, output):
    q, k, v, weight, bias, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, weight, bias, output[1])


def _differentiate(ctx, grad, _):
    q, k, v, weight, bias, lse = ctx.saved_tensors
    dq, dk, dv, lepe = _backward(grad, q, k, v, weight, lse, *ctx.options)
    d_weight = None if weight is None else lepe[:, :9].transpose(1, 2).reshape(weight.shape).to(weight.dtype)
    d_bias = None if bias is None else lepe[:, 9].reshape(bias.shape).to(bias.dtype)
    return dq, dk, dv, d_weight, d_bias, *(None for _ in ctx.options)


_forward.register_autograd(_differentiate, setup_context=_setup)

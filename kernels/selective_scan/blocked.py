"""The selective scan in few, large torch operations, with its own backward.

Tokens are taken in blocks, one after the other, so that the states in memory stay few: forward keeps only the state at
the start of each block and backward computes the others again (unless all together are small). Within a block of W
tokens the recurrence takes W steps or, where a step is too small to be worth a call, is cut into pieces that advance
together: first each piece's last state from zero, then the carries from piece to piece, then all states. Decays are
only ever products of exp(delta A) <= 1, so that long sequences neither overflow nor divide by zero.

Shapes: B batch, T tokens, C channels, n states, W tokens of a block, P pieces; states are (B, W, n, C).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

BLOCK = {"cpu": 2**18, "cuda": 2**27}  # state elements of a block; on a CPU a few blocks fit a second-level cache
KEEP = {"cpu": 2**22, "cuda": 2**27}  # state elements of a call up to which backward finds them in memory
STEP = {"cpu": 2**13, "cuda": 2**19}  # state elements of a step above which cutting into pieces does not pay


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    dtype = torch.promote_types(u.dtype, torch.float32)
    u_ = u.to(dtype)
    y = _Scan.apply(u_, delta.to(dtype), A.to(dtype), B.to(dtype), C.to(dtype))
    if D is not None:
        y = torch.addcmul(y, u_, D.to(dtype))
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype)


class _Scan(torch.autograd.Function):
    """(u, delta, A, B, C) -> y without D and z, in one dtype. Large tensors are reused: allocating is slow."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C):
        A = A.t().contiguous()
        w = delta * u
        kept = u.numel() * A.shape[0] <= KEEP.get(u.device.type, KEEP["cuda"])
        y, starts, states, carry = torch.empty_like(u), [], [], None
        for span in _spans(u, A):
            a, s = _states(delta[:, span], w[:, span], A, B[:, span], carry)
            _sum_n(s, C[:, span, :, None], out=y[:, span])
            starts.append(carry)
            states += (a, s) if kept else ()
            carry = s[:, -1] if kept else s[:, -1].clone()  # a view would keep all of s
        ctx.blocks = len(starts)
        ctx.save_for_backward(u, delta, A, B, C, w, *starts, *states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        u, delta, A, B, C, w, *rest = ctx.saved_tensors
        spans, starts, kept = _spans(u, A), rest[: ctx.blocks], rest[ctx.blocks :]
        g_w, g_delta, g_B, g_C = (torch.empty_like(x) for x in (w, delta, B, C))
        g_A, carry = torch.zeros_like(A), None
        for i in reversed(range(ctx.blocks)):
            span, start, gy_ = spans[i], starts[i], gy[:, spans[i], None]
            if kept:
                a, s = kept[2 * i : 2 * i + 2]
            else:
                a, s = _states(delta[:, span], w[:, span], A, B[:, span], start)
            x = s * gy_
            torch.sum(x, -1, out=g_C[:, span])
            g = torch.mul(gy_, C[:, span, :, None], out=x)  # the gradient of s_t, so far from y_t alone
            r = _scan_(a, a * g, carry, delta[:, span], A, reverse=True)  # r_t = a_t g_t, the gradient on to s_(t-1)
            g[:, :-1] += r[:, 1:]
            if carry is not None:
                g[:, -1] += carry
            carry = r[:, 0].clone()
            _sum_n(g, B[:, span, :, None], out=g_w[:, span])
            torch.sum(g.mul_(w[:, span, None]), -1, out=g_B[:, span])
            r[:, 1:] *= s[:, :-1]  # r becomes the gradient of delta_t A
            r[:, 0] = 0 if start is None else r[:, 0] * start
            _sum_n(r, A, out=g_delta[:, span])
            g_A += r.mul_(delta[:, span, None]).sum((0, 1))
        return g_w * delta, torch.addcmul(g_delta, g_w, u), g_A.t(), g_B, g_C


def _sum_n(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """out = sum over the states of x * weight, (B, W, n, C) -> (B, W, C); weight is (n, C) or (B, W, n, 1)."""
    terms = list(zip(x.unbind(-2), weight.unbind(-2), strict=True))
    torch.mul(*terms[0], out=out)
    for term in terms[1:]:
        out.addcmul_(*term)


def _spans(u: Tensor, A: Tensor) -> list[slice]:
    width = max(1, BLOCK.get(u.device.type, BLOCK["cuda"]) // max(1, u.shape[0] * A.numel()))
    return [slice(t, min(t + width, u.shape[1])) for t in range(0, u.shape[1], width)]


def _states(delta: Tensor, w: Tensor, A: Tensor, B: Tensor, carry: Tensor | None) -> tuple[Tensor, Tensor]:
    """(decays, states) of a block that starts from the state `carry`, both (B, W, n, C)."""
    a = (delta[:, :, None] * A).exp_()
    return a, _scan_(a, w[:, :, None] * B[..., None], carry, delta, A)


def _scan_(a: Tensor, x: Tensor, carry: Tensor | None, delta: Tensor, A: Tensor, reverse: bool = False) -> Tensor:
    """x_t += a_t x_(t-1) for all tokens in order (or in reverse order, from x_(t+1)), in place; returns x."""
    W, step = x.shape[1], x[:, 0].numel()
    pieces = min(math.isqrt(2 * W), STEP.get(x.device.type, STEP["cuda"]) // step)
    if pieces < 4:
        _steps_(a.unbind(1), x.unbind(1), carry, reverse)
        return x
    length = -(-W // pieces)
    main = W - W % length  # the tokens that fill pieces; the others go one by one
    rest = a[:, main:].unbind(1), x[:, main:].unbind(1)
    if reverse:
        carry = _steps_(*rest, carry, reverse)
    carry = _pieces_(a[:, :main], x[:, :main], carry, delta[:, :main], A, length, reverse)
    if not reverse:
        _steps_(*rest, carry, reverse)
    return x


def _pieces_(
    a: Tensor, x: Tensor, carry: Tensor | None, delta: Tensor, A: Tensor, length: int, reverse: bool
) -> Tensor:
    """`_scan_` for a multiple of `length` tokens, all pieces of `length` at once; returns the last x."""
    a_, x_ = (list(y.unflatten(1, (-1, length)).unbind(2)) for y in (a, x))  # `length` times (B, P, n, C)
    if reverse:
        a_, x_ = a_[::-1], x_[::-1]
    last = x_[0]  # read only: a piece has two tokens at least
    for a_t, x_t in zip(a_[1:], x_[1:], strict=True):
        last = torch.addcmul(x_t, a_t, last)
    decay = (delta.unflatten(1, (-1, length)).sum(2)[:, :, None] * A).exp_()  # over a whole piece
    end = _steps_(decay.unbind(1), last.unbind(1), carry, reverse)
    before, after, edge = (slice(1, None), slice(-1), -1) if reverse else (slice(-1), slice(1, None), 0)
    x_[0][:, after].addcmul_(a_[0][:, after], last[:, before])
    if carry is not None:
        x_[0][:, edge].addcmul_(a_[0][:, edge], carry)
    _steps_(a_, x_, None, reverse=False)
    return end


def _steps_(a: Sequence[Tensor], x: Sequence[Tensor], carry: Tensor | None, reverse: bool) -> Tensor:
    """`_scan_` over sequences of tensors, one call a step; returns the last x."""
    for a_t, x_t in zip(reversed(a), reversed(x), strict=True) if reverse else zip(a, x, strict=True):
        if carry is not None:
            x_t.addcmul_(a_t, carry)
        carry = x_t
    return carry

"""Linear attention in matrix products, with its own backward: one state of all keys or, where causal, one per chunk.

Causal: within a chunk of CHUNK tokens the weights are formed (a small square); what came before it is in the state.
Backward is linear attention again, of the gradient g_i / (q_i . z_i), with the states of q^T g after each chunk.

Shapes: N = B h heads times chunks (one where not causal), c tokens of a chunk, m features, e values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"
CHUNK = 64


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, normalize: bool = True) -> Tensor:
    dtype, (B, h, T, _), chunks = torch.promote_types(q.dtype, torch.float32), q.shape, 0
    q_, k_, v_ = (x.to(dtype).flatten(0, 1) for x in (q, k, v))
    if causal:
        chunk = T if T <= 2 * CHUNK else CHUNK
        q_, k_, v_ = (F.pad(x, (0, 0, 0, -T % chunk)) if T % chunk else x for x in (q_, k_, v_))
        chunks = q_.shape[1] // chunk
        q_, k_, v_ = (x.unflatten(1, (chunks, chunk)).flatten(0, 1) for x in (q_, k_, v_))
    y = _Attention.apply(q_, k_, v_, chunks, normalize)
    return y.reshape(B, h, -1, v.shape[-1])[:, :, :T].to(q.dtype)


class _Attention(torch.autograd.Function):
    """(q, k, v) of `chunks` chunks per head, 0 for not causal, -> y, in one dtype."""

    @staticmethod
    def forward(ctx, q, k, v, chunks, normalize):
        with torch.autocast(q.device.type, enabled=False):
            state, z = _states(k, v, k.sum(1, keepdim=True) if normalize else None, chunks)
            y, weights, total = _product(q, state, v), None, None
            if chunks:
                weights = (q @ k.mT).tril_()
                y.baddbmm_(weights, v)
            if normalize:
                total = 0.0 if z is None else q @ z.mT
                total = total if weights is None else total + weights.sum(-1, keepdim=True)
                total = total.masked_fill_(total == 0, torch.inf)
                y /= total
        ctx.chunks = chunks
        ctx.save_for_backward(q, k, v, y if normalize else None, weights, total)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        q, k, v, y, weights, total = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            row = k_sum = q_sum = None
            if total is not None:
                g = g / total
                row = (g * y).sum(-1, keepdim=True)
                k_sum, q_sum = k.sum(1, keepdim=True), row.mT @ q
            before, z = _states(k, v, k_sum, ctx.chunks)
            after, r = _states(q, g, q_sum, ctx.chunks, reverse=True)
            g_q = _product(g, None if before is None else before.mT, k)
            g_k = _product(v, None if after is None else after.mT, q)
            g_v = _product(k, after, g)
            if z is not None:
                g_q.addcmul_(row, z, value=-1)
                g_k -= r
            if weights is not None:
                scores = g @ v.mT
                scores = (scores if row is None else scores.sub_(row)).tril_()
                g_q.baddbmm_(scores, k)
                g_k.baddbmm_(scores.mT, q)
                g_v.baddbmm_(weights.mT, g)
        return g_q, g_k, g_v, None, None


def _product(x: Tensor, state: Tensor | None, like: Tensor) -> Tensor:
    """x times a state, which is zero where there is none; the result has the width of `like`."""
    return x.new_zeros(*x.shape[:-1], like.shape[-1]) if state is None else x @ state


def _states(
    x: Tensor, y: Tensor, vector: Tensor | None, chunks: int, reverse: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """(x^T y, vector), summed over the chunks before each (after each, in reverse); None where there are none."""
    if chunks == 1:
        return None, None
    return tuple(None if s is None else _exclusive(s, chunks, reverse) for s in (x.mT @ y, vector))


def _exclusive(sums: Tensor, chunks: int, reverse: bool) -> Tensor:
    if not chunks:
        return sums
    sums = sums.unflatten(0, (-1, chunks))
    if reverse:
        return F.pad(sums[:, 1:].flip(1).cumsum(1).flip(1), (0, 0, 0, 0, 0, 1)).flatten(0, 1)
    return F.pad(sums[:, :-1].cumsum(1), (0, 0, 0, 0, 1, 0)).flatten(0, 1)

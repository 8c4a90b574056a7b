"""Joint attention in batched matrix products over all chunks, with its own backward.

Scales ride on the products, sums of products accumulate in place, and of the weights A = r^2, r = relu(q k^T / P),
only r is kept: it is the derivative too, up to a factor (dA/dr = 2 r, zero where the relu is). Dropout is applied to r,
which is then r / (1 - p) or 0, so that A = (1 - p) r^2 and the derivative stays 2 r: no mask of what was dropped is
kept.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e of a value; M parts of a sequence with a state
k'^T x of their own: one, or C if causal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.joint_local_global_attention._mask import masked_keys

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def joint_local_global_attention(
    q_local: Tensor,
    k_local: Tensor,
    q_global: Tensor,
    k_global: Tensor,
    v: Tensor,
    u: Tensor,
    *,
    group: int,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    if mask is not None:
        k_local, k_global = masked_keys(k_local, k_global, mask, causal)
    S = q_local.shape[1]
    inputs = (q_local, k_local, q_global, k_global, v, u)
    if S % group:
        inputs = tuple(F.pad(x, (0, 0, 0, -S % group)) for x in inputs)
    att_v, att_u = _Joint.apply(*inputs, group, 1 / (group if causal else S), causal, dropout)
    return att_v[:, :S], att_u[:, :S]


class _Joint(torch.autograd.Function):
    """(q, k, q', k', v, u) -> (att_v, att_u) for S a multiple of P; `scale` is that of the global part."""

    @staticmethod
    def forward(ctx, q, k, qg, kg, v, u, group, scale, causal, dropout):
        q_, k_, v_, u_ = (_parts(x, group) for x in (q, k, v, u))
        r = _bmm(q_, k_.mT, 1 / group).relu_()
        if causal:
            r.tril_()
        if dropout:
            r = F.dropout(r, dropout)
        A = _squares(r, dropout)
        length = group if causal else q.shape[1]
        qg_, kg_ = _parts(qg, length), _parts(kg, length)
        outputs, states = [], []
        for x, x_ in ((v, v_), (u, u_)):
            state = _bmm(kg_.mT, _parts(x, length), scale)  # (B M, d, e)
            if causal:
                state = _before(state, q.shape[0])
            y = torch.bmm(A, x_)
            _parts(y, length, x.shape).baddbmm_(qg_, state)
            outputs.append(y.view(x.shape))
            states.append(state)
        ctx.save_for_backward(q, k, qg, kg, v, u, r, *states)
        ctx.options = group, scale, causal, dropout
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *upstream):
        q, k, qg, kg, v, u, r, *states = ctx.saved_tensors
        group, scale, causal, dropout = ctx.options
        length = group if causal else q.shape[1]
        qg_, kg_ = _parts(qg, length), _parts(kg, length)
        A = _squares(r, dropout)
        d_A = d_qg = d_kg = None
        d_values = []
        for x, g, state in zip((v, u), upstream, states, strict=True):
            x_, g_ = _parts(x, group), _parts(g, group)
            x__, g__ = _parts(x, length), _parts(g, length)
            d_state = _bmm(qg_.mT, g__, scale)
            if causal:
                d_state = _before(d_state.flip(0), q.shape[0]).flip(0)
            d_x = torch.bmm(A.mT, g_)
            _parts(d_x, length, x.shape).baddbmm_(kg_, d_state)
            d_values.append(d_x.view(x.shape))
            d_A = _add_bmm(d_A, g_, x_.mT)
            d_qg = _add_bmm(d_qg, g__, state.mT)
            d_kg = _add_bmm(d_kg, x__, d_state.mT)
        d_s = d_A.mul_(r)  # times 2
        d_q = _bmm(d_s, _parts(k, group), 2 / group).view(q.shape)
        d_k = _bmm(d_s.mT, _parts(q, group), 2 / group).view(k.shape)
        return d_q, d_k, d_qg.view(q.shape), d_kg.view(k.shape), *d_values, None, None, None, None


def _parts(x: Tensor, length: int, shape: torch.Size | None = None) -> Tensor:
    """x, of the shape (B, S, n) or to be taken for it, as (B S / length, length, n)."""
    return x.reshape(-1, length, (shape or x.shape)[-1])


def _bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a b, in one pass."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)


def _add_bmm(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total += a b in place; from nothing where None."""
    return torch.bmm(a, b) if total is None else total.baddbmm_(a, b)


def _squares(r: Tensor, dropout: float) -> Tensor:
    """A, from its roots."""
    A = r * r
    return A.mul_(1 - dropout) if dropout else A


def _before(states: Tensor, batch: int) -> Tensor:
    """(B C, d, e) -> for each chunk the sum of the chunks before it, in the same shape."""
    states = states.unflatten(0, (batch, -1))
    return F.pad(states[:, :-1].cumsum(1), (0, 0, 0, 0, 1, 0)).flatten(0, 1)

"""Joint attention in Triton: the linear part's states in two small kernels, all else fused in one kernel forward and
two backward (see _forward.py and _backward.py). Nothing of the size of the weights is written to memory.

Shapes: B batch, S tokens, C chunks of P tokens, d width of a query, e1 and e2 of the values.
"""

import torch
import triton
from torch import Tensor

from kernels import gpu
from kernels.joint_local_global_attention._backward import by_keys, by_queries
from kernels.joint_local_global_attention._forward import attend
from kernels.joint_local_global_attention._mask import masked_keys
from kernels.joint_local_global_attention._tiles import moments, sum_spans

PRIORITY = 20
REQUIRES = gpu.REQUIRES
MAX_GROUP, MAX_WIDTH = 512, 256
MAX_TILE = 2**17  # bytes of all keys of a chunk, which are in shared memory at once
PROGRAMS = 264  # enough for the 132 multiprocessors of an H100 twice
SPANS = 32  # of a sequence, in which the linear part's sum is cut at most

supports = gpu.runs


def fits(
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
) -> str:
    if group > MAX_GROUP:
        return f"groups of {group} tokens (at most {MAX_GROUP})"
    if q_local.shape[-1] > MAX_WIDTH:
        return f"queries of width {q_local.shape[-1]} (at most {MAX_WIDTH})"
    tiles, _ = _blocks(group, q_local.shape[-1], q_local.element_size())
    if tiles["BLOCK_P"] * tiles["BLOCK_D"] * q_local.element_size() > MAX_TILE:
        return f"groups of {group} tokens with queries of width {q_local.shape[-1]} in {q_local.dtype}"
    return "" if min(q_local.numel(), v.numel(), u.numel()) else "empty tensors"


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
    seed = torch.randint(2**40, (1,), device=v.device) if dropout else None
    return _forward(q_local, k_local, q_global, k_global, v, u, seed, group, causal, dropout)[:2]


@torch.library.custom_op("runner::joint_local_global_attention_forward", mutates_args=())
def _forward(
    q_local: Tensor, k_local: Tensor, q_global: Tensor, k_global: Tensor, v: Tensor, u: Tensor,
    seed: Tensor | None, group: int, causal: bool, dropout: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(att_v, att_u, state_v, state_u); the states are (B, 1 or C if causal, d, e)."""
    ql, kl, qg, kg = (x.contiguous() for x in (q_local, k_local, q_global, k_global))
    v, u = _by_rows(v), _by_rows(u)
    (B, S, d), e1, e2, C = ql.shape, v.shape[-1], u.shape[-1], triton.cdiv(v.shape[1], group)
    state_v, state_u = (_state(kg, x, group, causal, reverse=False) for x in (v, u))
    att_v, att_u = v.new_empty(B, S, e1), u.new_empty(B, S, e2)
    blocks, launch = _blocks(group, d, v.element_size())
    rows = blocks["BLOCK_ROWS"]
    if v.element_size() == 2 and d <= 128 and not dropout:  # one tile of weights; backward and dropout hold more
        rows = min(2 * rows, blocks["BLOCK_P"])
    programs = B * C * triton.cdiv(group, rows)
    splits = max(1, min(PROGRAMS // programs, triton.cdiv(max(e1, e2), 4 * blocks["BLOCK_E"])))
    attend[(programs, splits)](
        ql, kl, qg, v, u, state_v, state_u, att_v, att_u, seed, dropout, v.stride(1), u.stride(1), S, group, C, e1, e2,
        D=d, CAUSAL=causal, DROPOUT=dropout > 0, SPLITS=splits, BLOCK_Q=rows, BLOCK_P=blocks["BLOCK_P"],
        BLOCK_D=blocks["BLOCK_D"], BLOCK_E=blocks["BLOCK_E"], **launch,
    )  # fmt: skip
    return att_v, att_u, state_v, state_u


@_forward.register_fake
def _(q_local, k_local, q_global, k_global, v, u, seed, group, causal, dropout):
    (B, S, d), e1, e2 = q_local.shape, v.shape[-1], u.shape[-1]
    states = (B, (S + group - 1) // group if causal else 1, d)
    return v.new_empty(B, S, e1), u.new_empty(B, S, e2), v.new_empty(*states, e1), u.new_empty(*states, e2)


@torch.library.custom_op("runner::joint_local_global_attention_backward", mutates_args=())
def _backward(
    d_att_v: Tensor, d_att_u: Tensor, q_local: Tensor, k_local: Tensor, q_global: Tensor, k_global: Tensor,
    v: Tensor, u: Tensor, state_v: Tensor, state_u: Tensor, seed: Tensor | None,
    group: int, causal: bool, dropout: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q_local, k_local, q_global, k_global, v, u."""
    ql, kl, qg, kg = (x.contiguous() for x in (q_local, k_local, q_global, k_global))
    v, u, gv, gu = (_by_rows(x) for x in (v, u, d_att_v, d_att_u))
    (B, S, d), e1, e2, C = ql.shape, v.shape[-1], u.shape[-1], triton.cdiv(v.shape[1], group)
    d_state_v, d_state_u = (_state(qg, g, group, causal, reverse=True) for g in (gv, gu))
    d_ql, d_kl, d_qg, d_kg = (torch.empty_like(x) for x in (ql, kl, qg, kg))
    d_v, d_u = v.new_empty(B, S, e1), u.new_empty(B, S, e2)
    blocks, launch = _blocks(group, d, v.element_size())
    rows, sizes = blocks.pop("BLOCK_ROWS"), (S, group, C, e1, e2)
    strides = [x.stride(1) for x in (v, u, gv, gu)]
    grid = (B * C * triton.cdiv(group, rows),)
    options = {"D": d, "CAUSAL": causal, "DROPOUT": dropout > 0, **blocks, **launch}
    by_queries[grid](
        ql, kl, v, u, state_v, state_u, gv, gu, d_ql, d_qg, seed, dropout, *strides, *sizes, BLOCK_Q=rows, **options
    )
    by_keys[grid](
        ql, kl, kg, v, u, d_state_v, d_state_u, gv, gu, d_kl, d_kg, d_v, d_u, seed, dropout, *strides, *sizes,
        BLOCK_K=rows, **options,
    )  # fmt: skip
    return d_ql, d_kl, d_qg, d_kg, d_v, d_u


@_backward.register_fake
def _(d_att_v, d_att_u, q_local, k_local, q_global, k_global, v, u, state_v, state_u, seed, group, causal, dropout):
    return tuple(x.new_empty(x.shape) for x in (q_local, k_local, q_global, k_global, v, u))


def _keep(ctx, inputs, output):
    *tensors, seed, group, causal, dropout = inputs
    ctx.save_for_backward(*tensors, *output[2:], seed)
    ctx.options = group, causal, dropout


def _differentiate(ctx, d_att_v, d_att_u, *_):
    return *_backward(d_att_v, d_att_u, *ctx.saved_tensors, *ctx.options), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _by_rows(x: Tensor) -> Tensor:
    """x (B, S, e) such that rows of adjacent numbers follow at a fixed distance: half of a split tensor as it is."""
    rows = x.stride(2) == 1 and x.stride(1) >= x.shape[2]
    return x if rows and (x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)) else x.contiguous()


def _state(k: Tensor, x: Tensor, group: int, causal: bool, reverse: bool) -> Tensor:
    """k^T x / S as (B, 1, d, e), or if causal for each chunk that of the chunks before (reverse: after) it, / P."""
    (B, S, d), e = k.shape, x.shape[-1]
    blocks, launch = _blocks(group, d, x.element_size())
    span = group if causal else max(512, 64 * triton.cdiv(S, 64 * SPANS))
    N = triton.cdiv(S, span)
    partial = torch.empty(B, N, d, e, dtype=torch.float32, device=x.device)
    columns = 128 if x.element_size() == 2 and d <= 128 and e > 64 else 64
    tokens = min(64, max(16, triton.next_power_of_2(span)))
    moments[(B * N, triton.cdiv(e, columns))](
        k, x, partial, x.stride(1), S, span, N, e,
        D=d, BLOCK_D=blocks["BLOCK_D"], BLOCK_E=columns, BLOCK_S=tokens, **launch,
    )  # fmt: skip
    state = x.new_empty(B, N if causal else 1, d, e)
    scale = 1 / (group if causal else S)
    sum_spans[(triton.cdiv(d * e, 1024), B)](
        partial, state, scale, N, d * e, CAUSAL=causal, REVERSE=reverse, BLOCK=1024
    )
    return state


def _blocks(group: int, d: int, element_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """(sizes of tiles, how to launch): so that a chunk's weights for BLOCK_ROWS queries or keys fit the registers."""
    P, D = (max(16, triton.next_power_of_2(n)) for n in (group, d))
    small, large = P * D <= 128 * 128, P * D * element_size > 2**16
    rows, columns = min(P, 32 if large else 64), 64 if element_size == 2 else 32
    tiles = {"BLOCK_ROWS": rows, "BLOCK_P": P, "BLOCK_D": D, "BLOCK_E": columns}
    return tiles, {"num_warps": 4 if small else 8, "num_stages": 1 if large else 2}

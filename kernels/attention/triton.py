"""Attention in Triton: FlashAttention-2 (Dao 2023, arXiv 2307.08691) with all options but dropout, in linear memory.

A window, packed sequences and causality cost what their pairs cost: blocks of keys that a block of queries cannot see
are never looked at. Nothing is tuned per machine.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import torch
import triton
from torch import Tensor

from kernels import gpu
from kernels.attention import _triton_backward as backward
from kernels.attention import _triton_forward as forward
from kernels.attention._triton_tiles import ADDED, BOOLEAN, LOG2E, NO_MASK

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs
WIDEST = 256

# (queries, keys, warps, stages) of a program, for rows of up to 128, 256, ... 2048 bytes
OUTPUTS = ((128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 8, 2), (32, 16, 8, 2), (32, 16, 8, 2))
GRADIENT_OF_QUERIES = ((128, 64, 8, 2), (64, 64, 8, 2), (32, 32, 8, 2), (32, 16, 8, 2), (32, 16, 8, 2))
GRADIENTS_OF_KEYS = ((32, 128, 8, 2), (32, 64, 8, 2), (32, 32, 8, 2), (32, 32, 8, 2), (16, 16, 4, 1))


def fits(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    key_lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    return_lse: bool = False,
) -> str:
    """What of this call these kernels cannot do, or nothing."""
    if dropout:
        return "dropout"
    if max(q.shape[-1], v.shape[-1]) > WIDEST:
        return f"head dimension {max(q.shape[-1], v.shape[-1])}"
    if mask is not None and mask.requires_grad and torch.is_grad_enabled():
        return "a bias that asks for gradients"
    return ""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    key_lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    if torch.is_autocast_enabled(q.device.type):  # as torch's own function does
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    starts = ends = None
    if cu_seqlens is not None:
        starts, ends = _bounds(cu_seqlens, q.shape[-2])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    window = -1 if window is None else min(window, q.shape[-2] + k.shape[-2])
    y, lse = attention_forward(q, k, v, mask, key_lengths, starts, ends, causal, window, scale)
    return (y, lse) if return_lse else y


def _bounds(cu_seqlens: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Where the sequence of each token begins and ends, both (T,): the same place after the last sequence."""
    sequence = torch.searchsorted(cu_seqlens, torch.arange(T, device=cu_seqlens.device), right=True)
    cu_seqlens = cu_seqlens.to(torch.int32)
    return cu_seqlens[sequence - 1], cu_seqlens[sequence.clamp(max=len(cu_seqlens) - 1)]


@torch.library.custom_op("runner::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key_lengths: Tensor | None,
    starts: Tensor | None,
    ends: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(y, lse); window -1 is none; starts, ends: (T,), see `_bounds`."""
    q, k, v = (_rows(x) for x in (q, k, v))
    (B, h, T, _), S = q.shape, k.shape[2]
    y, lse = _outputs(q, v)
    tensors, mask_strides, sizes = _arguments(q, k, v, mask, key_lengths, starts, ends, causal, window)
    M, N, warps, stages = _blocks(OUTPUTS, sizes, q)
    with torch.cuda.device_of(q):
        forward.outputs[(triton.cdiv(T, M) * B * h,)](
            q, k, v, *tensors, y, lse, T, S, h, h // k.shape[1], window, scale * LOG2E.value,
            *_strides(q), *_strides(k), *_strides(v), *_strides(y), *mask_strides,
            M=M, N=N, **sizes, num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return y, lse


@attention_forward.register_fake
def _(q, k, v, mask, key_lengths, starts, ends, causal, window, scale):
    return _outputs(q, v)


@torch.library.custom_op("runner::attention_backward", mutates_args=())
def attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key_lengths: Tensor | None,
    starts: Tensor | None,
    ends: Tensor | None,
    causal: bool,
    window: int,
    scale: float,
    y: Tensor,
    lse: Tensor,
    dy: Tensor,
    dlse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv)."""
    q, k, v, y, dy = (_rows(x) for x in (q, k, v, y, dy))
    (B, h, T, _), (g, S) = q.shape, k.shape[1:3]
    dq, dk, dv = (_empty_rows(x) for x in (q, k, v))
    delta = torch.empty_like(lse)
    tensors, mask_strides, sizes = _arguments(q, k, v, mask, key_lengths, starts, ends, causal, window)
    inputs = (q, k, v, dy, *tensors, lse, delta)
    numbers = (T, S, h, h // g, window, scale, scale * LOG2E.value)
    strides = (*_strides(q), *_strides(k), *_strides(v), *_strides(dy))
    with torch.cuda.device_of(q):
        M = 16 if gpu.INTERPRETED.value else 64
        backward.row_sums[(triton.cdiv(T, M) * B * h,)](
            y, dy, lse, dlse, delta, T, h, *_strides(y), *_strides(dy), *_strides(dlse),
            E=sizes["E"], M=M, BLOCK_E=sizes["BLOCK_E"],
        )  # fmt: skip
        M, N, warps, stages = _blocks(GRADIENT_OF_QUERIES, sizes, q)
        backward.gradient_of_queries[(triton.cdiv(T, M) * B * h,)](
            *inputs, dq, *numbers, *strides, *_strides(dq), *mask_strides,
            M=M, N=N, **sizes, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        M, N, warps, stages = _blocks(GRADIENTS_OF_KEYS, sizes, q)
        backward.gradients_of_keys[(triton.cdiv(S, N) * B * g,)](
            *inputs, dk, dv, *numbers, *strides, *_strides(dk), *_strides(dv), *mask_strides,
            M=M, N=N, **sizes, num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return dq, dk, dv


@attention_backward.register_fake
def _(q, k, v, mask, key_lengths, starts, ends, causal, window, scale, y, lse, dy, dlse):
    return _empty_rows(q), _empty_rows(k), _empty_rows(v)


def _setup_context(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, causal, window, scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.options = causal, window, scale


def _backward(ctx, dy: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, y, lse = ctx.saved_tensors
    return *attention_backward(*tensors, *ctx.options, y, lse, dy, dlse), *(None,) * 7


attention_forward.register_autograd(_backward, setup_context=_setup_context)


def _outputs(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
    return y, q.new_empty(q.shape[:3], dtype=torch.float32)


def _empty_rows(x: Tensor) -> Tensor:
    """As x, with the heads of a token side by side in memory: projections from and to them copy nothing."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2)


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor) -> tuple[int, ...]:
    return x.stride()[:3]


def _arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key_lengths: Tensor | None,
    starts: Tensor | None,
    ends: Tensor | None,
    causal: bool,
    window: int,
) -> tuple[tuple[Tensor, ...], tuple[int, ...], dict]:
    """What all kernels get: (mask, lengths, starts, ends), the mask's strides, and what is known when compiling."""
    kind, strides = NO_MASK, (0, 0, 0, 0)
    if mask is not None:
        kind = BOOLEAN if mask.dtype == torch.bool else ADDED
        mask = mask.expand(*q.shape[:3], k.shape[2])
        strides = mask.stride()
        mask = mask.view(torch.uint8) if kind is BOOLEAN else mask
    sizes = {
        "D": q.shape[-1],
        "E": v.shape[-1],
        "BLOCK_D": max(16, triton.next_power_of_2(q.shape[-1])),
        "BLOCK_E": max(16, triton.next_power_of_2(v.shape[-1])),
        "CAUSAL": causal,
        "WINDOWED": window >= 0,
        "PACKED": starts is not None,
        "LENGTHS": key_lengths is not None,
        "MASK": kind.value,
    }
    lengths = key_lengths if key_lengths is None else key_lengths.contiguous()
    return tuple(q if x is None else x for x in (mask, lengths, starts, ends)), strides, sizes  # q: never read there


def _blocks(table: tuple[tuple[int, ...], ...], sizes: dict, q: Tensor) -> tuple[int, ...]:
    """(queries, keys, warps, stages) of a program that needs few registers and at most 99 KB of shared memory.

    float32, which is multiplied without tensor cores, needs four times the registers of the other dtypes.
    """
    if gpu.INTERPRETED.value:
        return 16, 32, 1, 1
    row = max(sizes["BLOCK_D"], sizes["BLOCK_E"]) * (8 if q.dtype == torch.float32 else 2)
    M, N, warps, stages = table[max(0, (row - 1).bit_length() - 7)]
    if sizes["MASK"]:  # its tile needs room too
        M, N = (M, max(16, N // 2)) if table is GRADIENTS_OF_KEYS else (max(16, M // 2), N)
    return M, N, warps, stages

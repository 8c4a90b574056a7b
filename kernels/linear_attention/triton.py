"""Linear attention on a GPU: sums of k^T v in one kernel, their use in another, and the same two for the gradients.

Tokens are taken in chunks. Causal: every chunk adds what the state before it gives and what its own tokens give, the
latter as a small square of weights. With d_i = q_i . z_i the gradients are linear attention again, of p_i = q_i / d_i:

    dv_j = sum_i (p_i . k_j) g_i,   dk_j = sum_i (g_i . v_j - g_i . y_i) p_i,   dq_i = sum_j (same) k_j / d_i

so that backward walks the same chunks, for dk and dv with the states of p^T g after each chunk. States and sums are
float32; products with a state take tf32 where the inputs have 16 bits, as float16 would overflow.

Shapes: N = B h heads, T queries, S keys, m features, e values; states are (N, chunks, m, e).
"""

import torch
import triton
from torch import Tensor

from kernels import gpu
from kernels.linear_attention._kernels import attend, attend_backward, exclusive_sums, states

PRIORITY = 20
REQUIRES = gpu.REQUIRES
SPAN = 1024  # keys that one program sums where all go into one state
CHUNK = {torch.float32: 32, torch.bfloat16: 64, torch.float16: 64}  # tokens; and the widest block of features


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return gpu.runs(device, dtype)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, normalize: bool = True) -> Tensor:
    return _forward(q, k, v, causal, normalize)[0]


def _blocks(x: Tensor, m: int, e: int) -> dict[str, int]:
    chunk = 16 if gpu.INTERPRETED else CHUNK[x.dtype]
    block_m, block_e = (max(16, min(chunk, triton.next_power_of_2(size))) for size in (m, e))
    return {"CHUNK": chunk, "BLOCK_M": block_m, "BLOCK_E": block_e, "num_warps": chunk // 8}


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def _states(x: Tensor, y: Tensor, row: Tensor | None, causal: bool, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """(sums of x^T y, sums of x weighted by `row` if any): of all tokens, or of those before (after) each chunk."""
    (N, T, m), e = x.shape, y.shape[-1]
    blocks = _blocks(x, m, e)
    span = blocks["CHUNK"] if causal else SPAN
    chunks = triton.cdiv(T, span)
    sums = x.new_empty(N, chunks, m, e, dtype=torch.float32)
    vectors = x.new_empty(N, chunks, m, dtype=torch.float32)
    grid = N, chunks, triton.cdiv(m, blocks["BLOCK_M"]) * triton.cdiv(e, blocks["BLOCK_E"])
    states[grid](x, y, row, sums, vectors, T, m, e, span, WEIGHTED=row is not None, **blocks)
    if not causal:
        return sums.sum(1, keepdim=True), vectors.sum(1, keepdim=True)
    for values in (sums, vectors):
        size = values[0, 0].numel()
        exclusive_sums[N, triton.cdiv(size, 256)](values, chunks, size, REVERSE=reverse, BLOCK=256)
    return sums, vectors


def _attend(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    state: tuple[Tensor, Tensor],
    total: Tensor | None,
    out: Tensor,
    causal: bool,
    reverse: bool = False,
) -> None:
    """Writes out_i = sum_j (x_i . y_j) w_j; where `total` is given, that too, and divides by it."""
    (N, T, m), e = x.shape, w.shape[-1]
    blocks = _blocks(x, m, e)
    attend[N, triton.cdiv(T, blocks["CHUNK"]), triton.cdiv(e, blocks["BLOCK_E"])](
        x, y, w, *state, total, out, T, m, e, state[0].shape[1],
        NORMALIZE=total is not None, CAUSAL=causal, REVERSE=reverse, PRECISION=_precision(x), **blocks,
    )  # fmt: skip


def _attend_backward(
    x: Tensor,
    y: Tensor,
    w: Tensor,
    state: tuple[Tensor, Tensor],
    row: Tensor | None,
    total: Tensor | None,
    out: Tensor,
    causal: bool,
    reverse: bool = False,
) -> None:
    """Writes out_i = sum_j (x_i . y_j - row) w_j, over `total` if given; `row` is the query's (i, or j in reverse)."""
    (N, T, e), m = x.shape, w.shape[-1]
    blocks = _blocks(x, m, e)
    attend_backward[N, triton.cdiv(T, blocks["CHUNK"]), triton.cdiv(m, blocks["BLOCK_M"])](
        x, y, w, *state, row, total, out, T, m, e, state[0].shape[1],
        NORMALIZE=row is not None, CAUSAL=causal, REVERSE=reverse, PRECISION=_precision(x), **blocks,
    )  # fmt: skip


def _flat(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.flatten(0, 1).contiguous() for x in tensors)


@torch.library.custom_op("runner::linear_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, normalize: bool) -> tuple[Tensor, Tensor]:
    """(y, q_i . z_i (B, h, T) in float32: infinite for 0, and empty without `normalize`)."""
    y, total = _forward_like(q, k, v, causal, normalize)
    if not y.numel() or not k.numel():
        return y.zero_(), total.fill_(torch.inf)
    q, k, v = _flat(q, k, v)
    _attend(q, k, v, _states(k, v, None, causal), total if normalize else None, y, causal)
    return y, total


@_forward.register_fake
def _forward_like(q: Tensor, k: Tensor, v: Tensor, causal: bool, normalize: bool) -> tuple[Tensor, Tensor]:
    total = q.shape[:-1] if normalize else (0,)
    return q.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(total, dtype=torch.float32)


@torch.library.custom_op("runner::linear_attention_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, total: Tensor, gy: Tensor, causal: bool, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    g_q, g_k, g_v = _backward_like(q, k, v, y, total, gy, causal, normalize)
    if not q.numel() or not k.numel() or not v.numel():
        return g_q.zero_(), g_k.zero_(), g_v.zero_()
    q, k, v, g = _flat(q, k, v, gy)
    p, row, total = (
        (q, None, None)
        if not normalize
        else (
            (q / total.flatten(0, 1)[..., None]).to(q.dtype),
            (g.float() * y.flatten(0, 1)).sum(-1),
            total,
        )
    )
    before = _states(k, v, None, causal)
    _attend_backward(g, v, k, before, row, total, g_q, causal)
    after = _states(p, g, row, causal, reverse=True)
    _attend_backward(v, g, p, after, row, None, g_k, causal, reverse=True)
    _attend(k, p, g, after, None, g_v, causal, reverse=True)
    return g_q, g_k, g_v


@_backward.register_fake
def _backward_like(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, total: Tensor, gy: Tensor, causal: bool, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _save(ctx, inputs: tuple, output: tuple) -> None:
    q, k, v, ctx.causal, ctx.normalize = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx, gy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward(*ctx.saved_tensors, gy, ctx.causal, ctx.normalize), None, None


_forward.register_autograd(_differentiate, setup_context=_save)

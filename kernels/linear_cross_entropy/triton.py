"""Cross-entropy in Triton. Forward: logits stay in registers, block by block of the vocabulary, summed up online.

Tokens times parts of the vocabulary are the programs, so that few tokens fill a GPU too; the parts' log-sum-exps are
then joined. Backward goes through the vocabulary in wide parts: a kernel computes a part's logits again and writes
softmax minus target, from which torch's matrix products make the gradients of x, of that part of the weight, finished
at once, and of the bias. Blocks whose tokens are all ignored are skipped. Same sums in the same order on every run.

Shapes: N tokens, d width, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu

PRIORITY = 20
REQUIRES = gpu.REQUIRES

PART = 2**10 if gpu.INTERPRETED.value else 2**27  # logit gradients that backward holds at a time
PROGRAMS = 4 if gpu.INTERPRETED.value else 528  # that forward has at least, where the vocabulary is large enough
LOG2E = tl.constexpr(1.4426950408889634)


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return gpu.runs(device, dtype)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    loss, _ = _forward(x, weight, target, bias, ignore_index, label_smoothing)
    if reduction == "none":
        return loss
    return loss.sum() / (target != ignore_index).sum().clamp(min=1) if reduction == "mean" else loss.sum()


@triton.jit
def _logits(
    x_ptr, w_ptr, b_ptr, rows, columns, N, V, D,
    HAS_BIAS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(BLOCK_N, BLOCK_V) in float32, -inf outside the vocabulary."""
    acc = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    x_rows = x_ptr + rows[:, None].to(tl.int64) * D
    w_columns = w_ptr + columns[None, :].to(tl.int64) * D
    for start in range(0, D, BLOCK_D):
        inner = start + tl.arange(0, BLOCK_D)
        x = tl.load(x_rows + inner[None, :], mask=(rows < N)[:, None] & (inner < D)[None, :], other=0.0)
        w = tl.load(w_columns + inner[:, None], mask=(inner < D)[:, None] & (columns < V)[None, :], other=0.0)
        acc = gpu.dot(x, w, acc)
    if HAS_BIAS:
        acc += tl.load(b_ptr + columns, mask=columns < V, other=0.0).to(tl.float32)[None, :]
    return tl.where((columns < V)[None, :], acc, float("-inf"))


@triton.jit
def _forward_kernel(
    x_ptr, w_ptr, target_ptr, b_ptr, lse_ptr, hit_ptr, sum_ptr, N, V, D, ignore_index, part,
    HAS_BIAS: tl.constexpr, SMOOTHED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    target = tl.load(target_ptr + rows, mask=rows < N, other=ignore_index)
    if tl.sum((target != ignore_index).to(tl.int32)) == 0:
        return
    largest = tl.full((BLOCK_N,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    hit = tl.zeros((BLOCK_N,), tl.float32)  # the logit of the target
    logit_sum = tl.zeros((BLOCK_N,), tl.float32)
    first = tl.program_id(1) * part
    for start in range(first, tl.minimum(first + part, V), BLOCK_V):
        columns = start + tl.arange(0, BLOCK_V)
        z = _logits(x_ptr, w_ptr, b_ptr, rows, columns, N, V, D, HAS_BIAS, BLOCK_N, BLOCK_V, BLOCK_D)
        new = tl.maximum(largest, tl.max(z, 1))
        shift = tl.where(new == float("-inf"), 0.0, new)  # so far only logits of -inf
        total = total * tl.exp2((largest - shift) * LOG2E) + tl.sum(tl.exp2((z - shift[:, None]) * LOG2E), 1)
        largest = new
        hit += tl.sum(tl.where(columns[None, :] == target[:, None], z, 0.0), 1)
        if SMOOTHED:
            logit_sum += tl.sum(tl.where((columns < V)[None, :], z, 0.0), 1)
    here = tl.program_id(1).to(tl.int64) * N + rows
    tl.store(lse_ptr + here, largest + tl.log(total), mask=rows < N)
    tl.store(hit_ptr + here, hit, mask=rows < N)
    if SMOOTHED:
        tl.store(sum_ptr + here, logit_sum, mask=rows < N)


@triton.jit
def _logit_gradient_kernel(
    x_ptr, w_ptr, target_ptr, b_ptr, lse_ptr, scale_ptr, g_ptr, N, V, D, ignore_index, label_smoothing, first, width,
    HAS_BIAS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """g (N, width): scale (softmax - target) for the logits from `first` on."""
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    local = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    columns = first + local
    target = tl.load(target_ptr + rows, mask=rows < N, other=ignore_index)
    kept = target != ignore_index
    g = tl.zeros((BLOCK_N, BLOCK_V), tl.float32)
    if tl.sum(kept.to(tl.int32)) > 0:
        z = _logits(x_ptr, w_ptr, b_ptr, rows, columns, N, V, D, HAS_BIAS, BLOCK_N, BLOCK_V, BLOCK_D)
        lse = tl.load(lse_ptr + rows, mask=kept, other=float("inf"))
        scale = tl.load(scale_ptr + rows, mask=kept, other=0.0)
        is_target = columns[None, :] == target[:, None]
        g = tl.exp2((z - lse[:, None]) * LOG2E) - label_smoothing / V
        g = (g - tl.where(is_target, 1.0 - label_smoothing, 0.0)) * scale[:, None]
        g = tl.where(kept[:, None], g, 0.0)
    mask = (rows < N)[:, None] & (local < width)[None, :]
    g_rows = g_ptr + rows[:, None].to(tl.int64) * width
    tl.store(g_rows + local[None, :], g.to(g_ptr.dtype.element_ty), mask=mask)


@torch.library.custom_op("runner::linear_cross_entropy_forward", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, ignore_index: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """loss (N,) and log-sum-exp (N,), both float32."""
    (N, D), V = x.shape, weight.shape[0]
    if N == 0:
        return x.new_empty(0, dtype=torch.float32), x.new_empty(0, dtype=torch.float32)
    block_n, block_v, block_d, options = _blocks(x.dtype)
    blocks_n, blocks_v = triton.cdiv(N, block_n), triton.cdiv(V, block_v)
    part = triton.cdiv(blocks_v, min(blocks_v, triton.cdiv(PROGRAMS, blocks_n))) * block_v
    parts = triton.cdiv(V, part)
    lse, hit, logit_sum = torch.empty(3, parts, N, dtype=torch.float32, device=x.device)
    target = target.contiguous()
    _forward_kernel[(blocks_n, parts)](
        x.contiguous(), weight.contiguous(), target, x if bias is None else bias.contiguous(), lse, hit, logit_sum,
        N, V, D, ignore_index, part,
        HAS_BIAS=bias is not None, SMOOTHED=label_smoothing > 0,
        BLOCK_N=block_n, BLOCK_V=block_v, BLOCK_D=block_d, **options,
    )  # fmt: skip
    lse = torch.logsumexp(lse, 0)
    loss = lse - (1 - label_smoothing) * hit.sum(0)
    if label_smoothing > 0:
        loss -= label_smoothing / V * logit_sum.sum(0)
    ignored = target == ignore_index  # nothing was written for some of these
    return loss.masked_fill_(ignored, 0.0), lse.masked_fill_(ignored, 0.0)


@_forward.register_fake
def _(x, weight, target, bias, ignore_index, label_smoothing):
    return x.new_empty(x.shape[0], dtype=torch.float32), x.new_empty(x.shape[0], dtype=torch.float32)


@torch.library.custom_op("runner::linear_cross_entropy_backward", mutates_args=())
def _gradients(
    scale: Tensor,
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    lse: Tensor,
    ignore_index: int,
    label_smoothing: float,
    x_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum_n scale_n loss_n by x, weight and bias, empty where not asked for."""
    (N, D), V = x.shape, weight.shape[0]
    gx, gw, gb = _empty_gradients(x, weight, x_grad, weight_grad, bias_grad)
    if N == 0:
        return gx, gw.zero_(), gb.zero_()
    x, weight, target = x.contiguous(), weight.contiguous(), target.contiguous()
    block_n, block_v, block_d, options = _blocks(x.dtype)
    width = min(V, triton.cdiv(max(PART // N, 1), block_v) * block_v)
    gx_sum = torch.zeros_like(x, dtype=torch.float32) if x_grad and width < V else None
    for first in range(0, V, width):
        part = slice(first, min(first + width, V))
        g = x.new_empty(N, part.stop - first)
        _logit_gradient_kernel[(triton.cdiv(g.shape[1], block_v), triton.cdiv(N, block_n))](
            x, weight, target, x if bias is None else bias.contiguous(), lse, scale.contiguous(), g,
            N, V, D, ignore_index, label_smoothing, first, g.shape[1],
            HAS_BIAS=bias is not None, BLOCK_N=block_n, BLOCK_V=block_v, BLOCK_D=block_d, **options,
        )  # fmt: skip
        if gx_sum is not None:
            gx_sum += g @ weight[part]
        elif x_grad:
            torch.mm(g, weight, out=gx)
        if weight_grad:
            torch.mm(g.t(), x, out=gw[part])
        if bias_grad:
            gb[part] = g.sum(0, dtype=torch.float32)
    return gx if gx_sum is None else gx_sum.to(x.dtype), gw, gb


@_gradients.register_fake
def _(scale, x, weight, target, bias, lse, ignore_index, label_smoothing, x_grad, weight_grad, bias_grad):
    return _empty_gradients(x, weight, x_grad, weight_grad, bias_grad)


def _empty_gradients(x: Tensor, weight: Tensor, *asked: bool) -> tuple[Tensor, Tensor, Tensor]:
    shapes = x.shape, weight.shape, weight.shape[:1]
    gx, gw, gb = (x.new_empty(shape if need else (0,)) for shape, need in zip(shapes, asked, strict=True))
    return gx, gw, gb


def _setup_context(ctx, inputs, output) -> None:
    x, weight, target, bias, *options = inputs
    ctx.save_for_backward(x, weight, target, bias, output[1])
    ctx.options = options


def _backward(ctx, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    asked = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    # float16 would lose gradients as small as 1 / N
    largest = torch.cat([g.abs(), g.new_full((1,), torch.finfo(g.dtype).tiny)]).amax()
    gradients = _gradients(g / largest, *ctx.saved_tensors, *ctx.options, *asked)
    gx, gw, gb = (y * largest if need else None for y, need in zip(gradients, asked, strict=True))
    return gx, gw, None, gb, None, None


_forward.register_autograd(_backward, setup_context=_setup_context)


def _blocks(dtype: torch.dtype) -> tuple[int, int, int, dict[str, int]]:
    """(BLOCK_N, BLOCK_V, BLOCK_D, options)."""
    if gpu.INTERPRETED.value:
        return 16, 32, 32, {}
    if dtype == torch.float32:  # no tensor cores
        return 64, 64, 32, {"num_warps": 4, "num_stages": 3}
    return 128, 128, 64, {"num_warps": 8, "num_stages": 4}

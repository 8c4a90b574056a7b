"""Cross-entropy over chunks of tokens: the logits of one chunk live at a time, in the processor's cache.

For a mean or a sum the weight of every token is known beforehand, so one pass makes the loss and, while a chunk's
logits are at hand, the gradients: three matrix products, as many as with all logits in memory. Without reduction the
weights come with the gradient of the loss, and backward computes the logits again.

Shapes: N tokens, d width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

CHUNK = {"cpu": 2**21, "cuda": 2**27}  # logits of a chunk: with fewer on a CPU, threads wait for each other
ROWS = 128  # a chunk has at least as many tokens: each one reads and writes the whole gradient of the weight


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


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
    asked = [torch.is_grad_enabled() and y is not None and y.requires_grad for y in (x, weight, bias)]
    if _keeps_logits(x, weight, any(asked), reduction):
        logits = F.linear(x, weight, bias).to(torch.promote_types(x.dtype, torch.float32))
        total = F.cross_entropy(
            logits,
            target,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="none" if reduction == "none" else "sum",
        )
    elif reduction == "none":
        total = _PerToken.apply(x, weight, target, bias, ignore_index, label_smoothing)
    else:
        total = _Sum.apply(x, weight, target, bias, ignore_index, label_smoothing, *asked)
    return total / (target != ignore_index).sum().clamp(min=1) if reduction == "mean" else total


def _keeps_logits(x: Tensor, weight: Tensor, with_gradients: bool, reduction: str) -> bool:
    """Whether the logits are so few that torch's cross-entropy on all of them is faster: measured on one core."""
    if not with_gradients:
        limit = 2**21
    elif reduction == "none":  # backward would compute the logits again
        limit = 2**25 if x.shape[1] >= 192 else 2**22
    else:
        limit = 2**20
    return x.is_cpu and x.shape[0] * weight.shape[0] <= limit


class _Sum(torch.autograd.Function):
    """The loss of all tokens."""

    @staticmethod
    def forward(ctx, x, weight, target, bias, ignore_index, label_smoothing, *asked):
        loss, *gradients = _chunks(x, weight, target, bias, None, ignore_index, label_smoothing, *asked)
        ctx.save_for_backward(*gradients)
        ctx.asked = asked
        return loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        gx, gw, gb = (y * g if asked else None for y, asked in zip(ctx.saved_tensors, ctx.asked, strict=True))
        return gx, gw, None, gb, None, None, None, None, None


class _PerToken(torch.autograd.Function):
    """loss (N,)."""

    @staticmethod
    def forward(ctx, x, weight, target, bias, ignore_index, label_smoothing):
        ctx.save_for_backward(x, weight, target, bias)
        ctx.options = ignore_index, label_smoothing
        return _chunks(x, weight, target, bias, None, ignore_index, label_smoothing, False, False, False)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        asked = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
        # float16 would lose gradients as small as 1 / N
        largest = torch.cat([g.abs(), g.new_full((1,), torch.finfo(g.dtype).tiny)]).amax()
        gradients = _chunks(*ctx.saved_tensors, g / largest, *ctx.options, *asked)[1:]
        gx, gw, gb = (y * largest if need else None for y, need in zip(gradients, asked, strict=True))
        return gx, gw, None, gb, None, None


@torch.library.custom_op("runner::linear_cross_entropy_chunks", mutates_args=())
def _chunks(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    x_grad: bool,
    weight_grad: bool,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss (N,), unscaled, and the gradients of sum_n scale_n loss_n (1 where None), empty where not asked for."""
    asked = x_grad, weight_grad, bias_grad
    kept = target != ignore_index
    if not x.is_cpu:  # ignored tokens are computed too: the host does not know which they are
        scale = kept.to(torch.float32) if scale is None else scale.masked_fill(~kept, 0.0)
        loss, *gradients = _over_chunks(x, weight, target.masked_fill(~kept, 0), bias, scale, label_smoothing, asked)
        return loss.masked_fill_(~kept, 0.0), *gradients
    if kept.all():
        return _over_chunks(x, weight, target, bias, scale, label_smoothing, asked)
    rows = kept.nonzero()[:, 0]
    scale = None if scale is None else scale[rows]
    part, gx_part, gw, gb = _over_chunks(x[rows], weight, target[rows], bias, scale, label_smoothing, asked)
    loss = part.new_zeros(x.shape[0]).index_copy_(0, rows, part)
    gx = torch.zeros_like(x).index_copy_(0, rows, gx_part) if x_grad else gx_part
    return loss, gx, gw, gb


@_chunks.register_fake
def _(x, weight, target, bias, scale, ignore_index, label_smoothing, x_grad, weight_grad, bias_grad):
    return _outputs(x, weight, (x_grad, weight_grad, bias_grad))


def _outputs(x: Tensor, weight: Tensor, asked: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss = x.new_empty(x.shape[0], dtype=torch.promote_types(x.dtype, torch.float32))
    shapes = x.shape, weight.shape, weight.shape[:1]
    gx, gw, gb = (x.new_empty(shape if need else (0,)) for shape, need in zip(shapes, asked, strict=True))
    return loss, gx, gw, gb


def _over_chunks(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    label_smoothing: float,
    asked: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_chunks` where no token is ignored."""
    loss, gx, gw, gb = _outputs(x, weight, asked)
    gw_sum, gb_sum = gw.to(loss.dtype).zero_(), gb.to(loss.dtype).zero_()  # over chunks in float32
    rows = max(ROWS, CHUNK.get(x.device.type, CHUNK["cuda"]) // weight.shape[0])
    buffer = x.new_empty(min(rows, x.shape[0]), weight.shape[0])  # one for all chunks: new memory costs page faults
    for start in range(0, x.shape[0], rows):
        span = slice(start, start + rows)
        x_ = x[span]
        z = buffer[: x_.shape[0]]
        torch.mm(x_, weight.t(), out=z) if bias is None else torch.addmm(bias, x_, weight.t(), out=z)
        loss[span], g = _loss_and_gradient(z.to(loss.dtype), target[span, None], label_smoothing, any(asked))
        if g is None:
            continue
        g = (g if scale is None else g.mul_(scale[span, None])).to(x.dtype)
        if asked[0]:
            torch.mm(g, weight, out=gx[span])
        if asked[1] and gw_sum.dtype == x.dtype:
            gw_sum.addmm_(g.t(), x_)
        elif asked[1]:
            gw_sum += g.t() @ x_
        if asked[2]:
            gb_sum += g.sum(0, dtype=gb_sum.dtype)
    return loss, gx, gw_sum.to(x.dtype), gb_sum.to(x.dtype)


def _loss_and_gradient(
    z: Tensor, target: Tensor, label_smoothing: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Logits (n, V), target (n, 1) -> the loss (n,) of each token and its gradient (n, V), in the logits' memory."""
    log_sum = z.amax(1) if with_gradient else 0.0
    if not with_gradient:
        z = torch.log_softmax(z, 1, out=z)  # a shift of the logits does not change the loss
    at_target, mean = z.gather(1, target)[:, 0], z.mean(1) if label_smoothing else 0.0
    g = None
    if with_gradient:
        g = torch.softmax(z, 1, out=z)
        log_sum -= g.amax(1).log()  # the largest probability never underflows
        if label_smoothing:
            g -= label_smoothing / g.shape[1]
        g.scatter_add_(1, target, g.new_full((), label_smoothing - 1).expand_as(target))
    return log_sum - (1 - label_smoothing) * at_target - label_smoothing * mean, g

"""Block-sparse attention as a flash loop over each query block's list of kept key blocks, and its backward.

Blocks that are kept whole come first and need no mask; those with a pattern, or beyond the last token, follow. Blocks
with long lists start first, so that none is left to run alone at the end.

Shapes: B batch, h heads, T queries, S keys, d and e widths; see `_mask.Lists` for the lists.
"""

import torch
from torch import Tensor

from kernels import gpu
from kernels.block_sparse_attention import _backward_kernels, _forward_kernel
from kernels.block_sparse_attention._mask import BlockMask

PRIORITY = 20
REQUIRES = gpu.REQUIRES
supports = gpu.runs

BLOCKS = (16, 32, 64, 128)
WIDTH = 256  # the largest head dimension


def fits(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> str:
    width = max(q.shape[-1], v.shape[-1])
    if width > WIDTH:
        return f"head dimension {width}"
    return "" if mask.block in BLOCKS else f"blocks of {mask.block} tokens"


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    patterns = mask.keep.new_empty(0, mask.block, mask.block) if mask.patterns is None else mask.patterns
    wants_gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    columns = list(mask.columns()) if wants_gradient else []
    y, lse = _forward(q, k, v, list(mask.rows()), columns, patterns, list(mask.keep.shape[:2]), scale)
    return (y, lse) if return_lse else y


@torch.library.custom_op("runner::block_sparse_attention_triton", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: list[Tensor],
    columns: list[Tensor],  # for backward
    patterns: Tensor,
    B_h: list[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    return _forward_kernel.launch(*(x.contiguous() for x in (q, k, v)), rows, patterns, B_h, scale)


@_forward.register_fake
def _(q, k, v, rows, columns, patterns, B_h, scale):
    return q.new_empty(*q.shape[:3], v.shape[-1]), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("runner::block_sparse_attention_triton_backward", mutates_args=())
def _backward(
    g_y: Tensor,
    g_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    rows: list[Tensor],
    columns: list[Tensor],
    patterns: Tensor,
    B_h: list[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    inner = (y.float() * g_y.float()).sum(-1) - g_lse
    q, k, v, g_y = (x.contiguous() for x in (q, k, v, g_y))
    g_q = _backward_kernels.launch_rows(q, k, v, g_y, lse, inner, rows, patterns, B_h, scale)
    g_k, g_v = _backward_kernels.launch_columns(q, k, v, g_y, lse, inner, columns, patterns, B_h, scale)
    return g_q, g_k, g_v


@_backward.register_fake
def _(g_y, g_lse, q, k, v, y, lse, rows, columns, patterns, B_h, scale):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save(ctx, inputs, output):
    q, k, v, rows, columns, patterns, ctx.B_h, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, *rows, *columns, patterns)


def _gradients(ctx, g_y, g_lse):
    *saved, patterns = ctx.saved_tensors
    rows, columns = saved[5:10], saved[10:]
    grads = _backward(g_y, g_lse, *saved[:5], rows, columns, patterns, ctx.B_h, ctx.scale)
    return *grads, [None] * len(rows), [None] * len(columns), None, None, None


_forward.register_autograd(_gradients, setup_context=_save)

"""Block-sparse attention in torch: the kept key blocks of several query blocks are gathered and multiplied at once.

Query blocks are taken in order of how many key blocks they keep, so that those taken together need little padding, and
few enough at a time that their scores stay in a cache; no T x S tensor exists. Backward computes the weights again from
the scores and lse. Small maps, and those mostly kept, are faster as masked dense attention and are computed so.
Custom ops, as the sizes depend on the mask's values, which torch.compile cannot trace.

Shapes: B batch, h heads, T queries, S keys, d and e widths, W tokens of a block, R query blocks taken together, c key
blocks of each of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.block_sparse_attention._mask import BlockMask

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

CHUNK = {"cpu": 2**18, "cuda": 2**25}  # scores that are computed together
PADDING = 2**16  # scores whose computation costs what taking a few query blocks on their own costs
DENSE = 2**18  # elements of a map that is never worth cutting
DENSE_IF_FULL, FULL = 2**22, 0.4  # elements of a map that is not worth cutting if more than this share is kept


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    rows, size = mask.rows(), q.shape[2] * k.shape[2]
    mostly = len(rows.entries) > FULL * mask.keep.numel()
    if not return_lse and size <= (DENSE_IF_FULL if mostly else DENSE):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.dense(), scale=scale)
    B_h = list(mask.keep.shape[:2])
    patterns = mask.keep.new_empty(0, mask.block, mask.block) if mask.patterns is None else mask.patterns
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    y, lse = _forward(q, k, v, rows.starts, rows.middle, rows.entries, rows.kinds, patterns, B_h, scale)
    return (y, lse) if return_lse else y


@torch.library.custom_op("runner::block_sparse_attention_gathered", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    middle: Tensor,
    entries: Tensor,
    kinds: Tensor,
    patterns: Tensor,
    B_h: list[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    W = patterns.shape[-1]
    q_, k_, v_ = (_blocked(x, W) for x in (q, k, v))
    y, lse = (
        torch.zeros_like(q_[..., :1]).expand(-1, -1, v.shape[-1]).contiguous(),
        q_.new_full(q_.shape[:2], -torch.inf),
    )
    for part in _parts(q, k, starts, middle, entries, kinds, patterns, B_h):
        scores = _scores(q_[part.query], k_, part, scale)
        top = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)  # finite in rows without any key
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        y[part.query] = (weights @ _gathered(v_, part)) / total.clamp(min=torch.finfo(total.dtype).tiny)
        lse[part.query] = (top + total.log())[..., 0]
    return _tokens(y, q).to(q.dtype), _tokens(lse[..., None], q)[..., 0].contiguous()


@_forward.register_fake
def _(q, k, v, starts, middle, entries, kinds, patterns, B_h, scale):
    lse = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
    return q.new_empty(*q.shape[:3], v.shape[-1]), lse


@torch.library.custom_op("runner::block_sparse_attention_gathered_backward", mutates_args=())
def _backward(
    g_y: Tensor,
    g_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    starts: Tensor,
    middle: Tensor,
    entries: Tensor,
    kinds: Tensor,
    patterns: Tensor,
    B_h: list[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    W = patterns.shape[-1]
    q_, k_, v_, g_y_ = (_blocked(x, W) for x in (q, k, v, g_y))
    lse_ = _blocked(torch.where(lse == -torch.inf, 0.0, lse)[..., None], W)
    inner = _blocked(((y.to(lse.dtype) * g_y.to(lse.dtype)).sum(-1) - g_lse)[..., None], W)
    g_q, g_k, g_v = (torch.zeros_like(x) for x in (q_, k_, v_))
    for part in _parts(q, k, starts, middle, entries, kinds, patterns, B_h):
        query, g = q_[part.query], g_y_[part.query]
        weights = _scores(query, k_, part, scale).sub_(lse_[part.query]).exp_()
        _add(g_v, part, weights.transpose(1, 2) @ g)
        g_scores = (g @ _gathered(v_, part).transpose(1, 2)).sub_(inner[part.query]).mul_(weights).mul_(scale)
        g_q[part.query] = g_scores @ _gathered(k_, part)
        _add(g_k, part, g_scores.transpose(1, 2) @ query)
    return tuple(_tokens(g, x).to(x.dtype) for g, x in ((g_q, q), (g_k, k), (g_v, v)))


@_backward.register_fake
def _(g_y, g_lse, q, k, v, y, lse, starts, middle, entries, kinds, patterns, B_h, scale):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save(ctx, inputs, output):
    *tensors, ctx.B_h, ctx.scale = inputs
    ctx.save_for_backward(*tensors[:3], *output, *tensors[3:])


def _gradients(ctx, g_y, g_lse):
    grads = _backward(g_y, g_lse, *ctx.saved_tensors, ctx.B_h, ctx.scale)
    return *grads, *(None,) * 7


_forward.register_autograd(_gradients, setup_context=_save)


class _Part(NamedTuple):
    """Query blocks that are taken together."""

    query: Tensor  # (R,): which of all B * h * nq
    key: Tensor  # (R, c): which of all B * h * nk
    masked: tuple[Tensor, Tensor]  # which of the (R, c) need a mask
    allowed: Tensor  # (their number, W, W): the mask


def _parts(
    q: Tensor,
    k: Tensor,
    starts: Tensor,
    middle: Tensor,
    entries: Tensor,
    kinds: Tensor,
    patterns: Tensor,
    B_h: list[int],
) -> Iterator[_Part]:
    (B, h), W, S = q.shape[:2], patterns.shape[-1], k.shape[2]
    nq, nk = -(-q.shape[2] // W), -(-S // W)
    row = torch.arange(len(middle), device=q.device).view(*B_h, nq).expand(B, h, nq).flatten()
    counts, order = starts.diff()[row].sort(descending=True, stable=True)
    table = torch.cat([patterns, patterns.new_ones(1, W, W), patterns.new_zeros(1, W, W)])
    real = torch.arange(W, device=q.device) < S - (nk - 1) * W
    for at, end in _together(counts.cpu(), W, CHUNK.get(q.device.type, CHUNK["cuda"])):
        query = order[at:end]
        rows, slots = row[query], torch.arange(counts[at], device=q.device)
        places = starts[rows][:, None] + slots
        padding = slots >= counts[at:end, None]
        masked = torch.nonzero((places >= middle[rows][:, None]) | padding, as_tuple=True)
        places = places.clamp(max=len(entries) - 1)
        key = entries[places]
        kind = kinds[places[masked]].long() if len(kinds) else places.new_full(masked[0].shape, -1).long()
        allowed = table[kind.where(kind >= 0, len(patterns)).where(~padding[masked], len(patterns) + 1)]
        allowed &= (real | (key[masked] < nk - 1)[:, None])[:, None]
        yield _Part(query, query[:, None] // nq * nk + key, masked, allowed)


def _together(counts: Tensor, W: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Cuts counts, which fall, into runs without many scores in all or many of padding."""
    counts = counts[counts > 0]
    at = 0
    while at < len(counts):
        run = counts[at : at + max(1, chunk // (W * W * int(counts[at])))]
        padding = (counts[at] - run).cumsum(0)
        size = int((padding <= run.cumsum(0) // 8 + PADDING // (W * W)).sum())
        yield at, at + size
        at += size


def _scores(query: Tensor, keys: Tensor, part: _Part, scale: float) -> Tensor:
    """(R, W, c * W), -inf where a query does not attend to a key."""
    R, c = part.key.shape
    scores = (query * scale) @ _gathered(keys, part).transpose(1, 2)
    if len(part.allowed):
        r, slot = part.masked
        tiles = scores.view(R, query.shape[1], c, -1)
        tiles[r, :, slot] = tiles[r, :, slot].masked_fill_(~part.allowed, -torch.inf)
    return scores


def _gathered(x: Tensor, part: _Part) -> Tensor:
    """The blocks (B * h * nk, W, d) of each query block's keys: (R, c * W, d)."""
    return x.index_select(0, part.key.flatten()).view(len(part.key), -1, x.shape[-1])


def _add(x: Tensor, part: _Part, gathered: Tensor) -> None:
    """Adds (R, c * W, d) to the blocks that `_gathered` took it from."""
    x.index_add_(0, part.key.flatten(), gathered.view(-1, *x.shape[1:]))


def _blocked(x: Tensor, W: int) -> Tensor:
    """(B, h, T, d) -> (B * h * blocks, W, d) in float32 at least, the last block of each head filled with zeros."""
    x = F.pad(x.to(torch.promote_types(x.dtype, torch.float32)), (0, 0, 0, -x.shape[2] % W))
    return x.reshape(-1, W, x.shape[-1])


def _tokens(blocks: Tensor, like: Tensor) -> Tensor:
    """Back from `_blocked`."""
    return blocks.view(*like.shape[:2], -1, blocks.shape[-1])[:, :, : like.shape[2]].contiguous()

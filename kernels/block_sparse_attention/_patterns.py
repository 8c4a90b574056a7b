"""Masks for block-sparse attention that the papers of this field use, static and from scores.

Video tokens lie frame by frame (frame-major: n = f P + s, P tokens in each of F frames), text tokens all before or all
after them. A block that has a text token counts as text and is always kept where `text` is given.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.block_sparse_attention._mask import BlockMask, blocks_of

__all__ = [
    "attention_tile",
    "diagonal",
    "frame_major",
    "pooled",
    "random",
    "row_count",
    "sliding_window",
    "token_blocks",
    "token_major",
    "top_columns",
    "top_k",
    "vertical_stripe",
    "window_width",
]


def token_blocks(tokens: int, block: int, start: int, stop: int) -> Tensor:
    """Which blocks have one of the tokens start .. stop - 1: bool (ceil(tokens / block),)."""
    at = torch.arange(0, tokens, block)
    return (at < stop) & (at + block > start) & (start < stop)


def diagonal(tokens: int, block: int, band: int, text: int = 0, text_first: bool = True) -> BlockMask:
    """Key block c for query block r where |r - c| < band, and text (Sparse-vDiT's diagonal mode, arXiv 2506.03065).

    Its multi-diagonal mode is the same mask on tokens in `token_major` order.
    """
    if band < 1:
        raise ValueError(f"diagonal: band={band} must be at least 1, else no block is kept")
    at = torch.arange(-(-tokens // block))
    return _whole((at[:, None] - at).abs() < band, tokens, block, text, text_first)


def vertical_stripe(
    tokens: int, block: int, columns: Tensor, text: int = 0, text_first: bool = True, own: bool = True
) -> BlockMask:
    """Key blocks that all queries attend to, text, and with `own` each query block itself (2506.03065).

    columns: bool (..., ceil(tokens / block)), up to two leading sizes for (B, h); `top_columns` picks them.
    """
    blocks = -(-tokens // block)
    if columns.dtype != torch.bool or columns.shape[-1] != blocks:
        raise ValueError(
            f"vertical_stripe: columns {columns.dtype} {tuple(columns.shape)} must be bool (..., {blocks})"
        )
    keep = columns[..., None, :].expand(*columns.shape[:-1], blocks, blocks)
    return _whole(keep | torch.eye(blocks, dtype=torch.bool) if own else keep, tokens, block, text, text_first)


def top_columns(mass: Tensor, density: float, always: Tensor | None = None) -> Tensor:
    """The key blocks of highest mass (..., nk), a share `density` of them, those in `always` (nk,) first: bool."""
    _check_density(density)
    count = max(1, math.floor(density * mass.shape[-1]))
    if always is not None:
        count = max(count, int(always.sum()))
        mass = mass.masked_fill(always.to(mass.device), torch.inf)
    return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, mass.topk(count, dim=-1).indices, True)


def window_width(density: float, tokens: int, text: int = 0, block: int = 128) -> int:
    """The tokens W so that |i - j| < W and text are a share `density` of the map, rounded down to whole blocks.

    W = N (1 - sqrt(1 - rho)) with rho = density - 2 text / N; one block at least (2506.03065, after Sparse VideoGen).
    """
    _check_density(density)
    if text > tokens:
        raise ValueError(f"window_width: {text} text tokens are more than all {tokens} tokens")
    rest = density - 2 * text / tokens
    if rest <= 0:
        raise ValueError(
            f"window_width: text alone takes 2 * {text} / {tokens} of the map, more than density {density}"
        )
    width = tokens * (1 - math.sqrt(1 - rest))
    return max(block, int(width) // block * block)


def attention_tile(frames: int, per_frame: int, k: int, block: int) -> BlockMask:
    """Attention within frames, and from and to reference frames 0, c, 2c, ... with c = ceil(frames / k) (2502.06155).

    Exact: blocks across a border of frames are kept in part. k = frames is full attention, k = 0 has no references.
    """
    if not 0 <= k <= frames:
        raise ValueError(
            f"tile mask k={k} needs at least {k} latent frames, the clip has {frames}"
            if k > frames
            else f"tile mask k={k} must not be negative"
        )
    frame = torch.arange(frames)
    reference = frame % math.ceil(frames / k) == 0 if k else frame < 0
    tile = (frame[:, None] == frame) | reference[:, None] | reference
    tokens = frames * per_frame

    def kept(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return tile[i // per_frame, j // per_frame]

    return BlockMask.from_elements(kept, block, (tokens, tokens), signature=_tile_signature(tile, per_frame, block))


def _tile_signature(tile: Tensor, per_frame: int, block: int) -> Tensor | None:
    """Blocks that are cut at the same places and whose up to four tiles are kept alike have the same elements."""
    if per_frame < block:  # more than one border in a block
        return None
    first = torch.arange(0, len(tile) * per_frame, block)
    frame = first // per_frame
    cut = ((frame + 1) * per_frame - first).clamp(max=block)  # where the next frame begins, or `block`
    following = torch.where(cut < block, frame + 1, frame).clamp(max=len(tile) - 1)
    kept = sum(
        tile[a[:, None], b] * 2**n
        for n, (a, b) in enumerate((a, b) for a in (frame, following) for b in (frame, following))
    )
    return ((cut[:, None] * (block + 1) + cut) * 16 + kept)[None, None]


def sliding_window(
    tokens: int,
    block: int,
    width: int,
    dilation: int = 1,
    global_tokens: Sequence[int] = (),
    causal: bool = False,
) -> BlockMask:
    """Query i attends to the keys j with |i - j| in {0, g, ..., width g}, g the dilation; exact (2004.05150).

    global_tokens attend to all and are attended by all. causal: j <= i, for global tokens too.
    """
    if width < 1 or dilation < 1:
        raise ValueError(f"sliding_window: width={width} and dilation={dilation} must be at least 1")
    everywhere = torch.zeros(tokens, dtype=torch.bool)
    everywhere[list(global_tokens)] = True

    def kept(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        near = ((i - j).abs() <= width * dilation) & ((i - j) % dilation == 0)
        near = near | everywhere[i] | everywhere[j]
        return near & (j <= i) if causal else near

    n = -(-tokens // block)
    at = torch.arange(n)
    has_global = F.pad(everywhere, (0, n * block - tokens)).view(n, block).any(1)
    unlike = torch.where(has_global, at + 1, 0)  # a block without global tokens depends on its distance only
    distance = (at[:, None] - at) + n
    signature = (distance * (n + 1) + unlike[:, None]) * (n + 1) + unlike
    return BlockMask.from_elements(kept, block, (tokens, tokens), signature=signature[None, None])


def random(
    tokens: int,
    block: int,
    count: int,
    heads: int = 1,
    batch: int = 1,
    own: bool = True,
    generator: torch.Generator | None = None,
) -> BlockMask:
    """`count` key blocks for each query block of each head, drawn without replacement; with `own` one is itself."""
    n = -(-tokens // block)
    if not 1 <= count <= n:
        raise ValueError(f"random: count={count} must be from 1 to the number of key blocks, {n}")
    scores = torch.rand(batch, heads, n, n, generator=generator)
    if own:
        scores = scores + 2 * torch.eye(n)
    return top_k(scores, count, block, (tokens, tokens))


def row_count(sparsity: float, blocks: int) -> int:
    """round((1 - sparsity) blocks), the key blocks that each query block keeps (AdaSpa, arXiv 2502.21079)."""
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be in [0, 1], got {sparsity} (it is the share left out: 1 - density)")
    count = math.floor((1 - sparsity) * blocks + 0.5)
    if not count:
        raise ValueError(
            f"sparsity {sparsity:g} keeps no block of {blocks} per row; use smaller blocks (attn.block) or"
            " lower sparsity"
        )
    return count


def top_k(
    scores: Tensor,
    count: int | Tensor,
    block: int,
    tokens: tuple[int, int],
    text: int = 0,
    text_first: bool = True,
) -> BlockMask:
    """The `count` key blocks of highest score for each query block, and text outside that budget (2502.21079).

    scores: (B, h, nq, nk), for instance of `block_mass`, or of `pooled`; NaN is an error. count: for all, or an integer
    tensor that broadcasts against (B, h, nq), so that heads may differ.
    """
    if tuple(scores.shape[2:]) != blocks_of(tokens, block) or scores.dim() != 4:
        raise ValueError(
            f"top_k: scores {tuple(scores.shape)} must be (B, h, {', '.join(map(str, blocks_of(tokens, block)))}) for"
            f" {tokens[0]} x {tokens[1]} tokens in blocks of {block}"
        )
    if scores.isnan().any():
        raise ValueError("top_k: scores has NaN")
    is_text = _text_blocks(tokens[1], block, text, text_first).to(scores.device)
    count = torch.as_tensor(count, device=scores.device).expand(scores.shape[:3])
    free = int((~is_text).sum())
    if count.min() < 0 or count.max() > free:
        raise ValueError(f"top_k: count must be from 0 to the number of key blocks without text, {free}")
    best = scores.masked_fill(is_text, -torch.inf).topk(int(count.max()), dim=-1).indices
    chosen = torch.arange(best.shape[-1], device=scores.device) < count[..., None]
    keep = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, chosen)
    return _whole(keep, tokens, block, text, text_first)


def pooled(scores: Tensor, block: int) -> Tensor:
    """Means over block x block tiles of element scores (B, h, T, S), of the elements that exist: (B, h, nq, nk)."""
    return F.avg_pool2d(scores, block, ceil_mode=True, count_include_pad=False)


def token_major(x: Tensor, frames: int, text: int = 0, text_first: bool = True) -> Tensor:
    """(..., N, d) of tokens in frame-major order, n = f P + s, in the order n' = s F + f; text stays where it is.

    Same places of different frames become neighbours. Rotary embeddings are applied before.
    """
    return _reordered(x, frames, text, text_first, to_token_major=True)


def frame_major(x: Tensor, frames: int, text: int = 0, text_first: bool = True) -> Tensor:
    """Back from `token_major`."""
    return _reordered(x, frames, text, text_first, to_token_major=False)


def _reordered(x: Tensor, frames: int, text: int, text_first: bool, to_token_major: bool) -> Tensor:
    video = x.shape[-2] - text
    if text > x.shape[-2] or video % frames:
        raise ValueError(f"{x.shape[-2]} tokens, {text} of them text, are not {frames} frames of equal size")
    start = text if text_first else 0
    sizes = (frames, video // frames) if to_token_major else (video // frames, frames)
    moved = x.narrow(-2, start, video).unflatten(-2, sizes).transpose(-3, -2).flatten(-3, -2)
    if not text:
        return moved
    words = x.narrow(-2, 0 if text_first else video, text)
    return torch.cat([words, moved] if text_first else [moved, words], dim=-2)


def _text_blocks(tokens: int, block: int, text: int, text_first: bool) -> Tensor:
    if not 0 <= text <= tokens:
        raise ValueError(f"text={text} must be from 0 to the number of tokens, {tokens}")
    return token_blocks(tokens, block, 0, text) if text_first else token_blocks(tokens, block, tokens - text, tokens)


def _whole(keep: Tensor, tokens: int | tuple[int, int], block: int, text: int, text_first: bool) -> BlockMask:
    """A mask of whole blocks with text as queries and as keys; keep is (..., nq, nk)."""
    T, S = (tokens, tokens) if isinstance(tokens, int) else tokens
    rows, columns = (_text_blocks(n, block, text, text_first).to(keep.device) for n in (T, S))
    keep = keep | rows[:, None] | columns
    return BlockMask(keep[(None,) * (4 - keep.dim())], block, (T, S))


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density} (it is the kept share: 1 - sparsity)")

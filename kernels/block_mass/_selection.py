"""Which blocks AdaSpa keeps, given their masses (Xia et al. 2025, arXiv 2502.21079, section 4).

Every query attends to the same number of video blocks, those of largest mass; blocks with text are always kept and do
not count. Heads whose blocks hold most of the attention get a higher sparsity, as many others a lower one.
Shapes: B batch, H heads, P blocks of queries and of keys.
"""

import torch
from torch import Tensor


def keep_blocks(
    mass: Tensor,
    *,
    tokens: int,
    block: int,
    sparsity: float,
    video: tuple[int, int] | None = None,
    head_adaptive: bool = True,
    recall_threshold: float = 0.8,
) -> Tensor:
    """The blocks to compute, boolean (B, H, P, P), from their masses (B, H, P, P), P = ceil(tokens / block).

    sparsity: the share of the video blocks of a row that is left out; round((1 - sparsity) * video blocks) are kept.
    video: the tokens from video[0] to video[1] - 1 are video, the others text, and a block with both is text; all are
    video where None. head_adaptive: see `head_sparsity`; the recall is that of the blocks kept at `sparsity`.
    Nothing is read back from the device.
    """
    P = -(-tokens // block)
    if block > tokens:
        raise ValueError(f"block {block} is larger than the {tokens} tokens; use a block of at most {tokens}")
    if mass.shape[-2:] != (P, P):
        raise ValueError(
            f"mass {tuple(mass.shape)} does not fit {tokens} tokens in blocks of {block}: ends in {P}, {P}"
        )
    is_text = _is_text(tokens, block, video)
    levels = _levels(sparsity) if head_adaptive else (sparsity,)
    counts = [_count(P - int(is_text.sum()), level) for level in levels]
    is_text = is_text.to(mass.device)
    text = is_text | is_text[:, None]
    order = mass.masked_fill(is_text, -torch.inf).topk(max(counts), dim=-1).indices
    keep = _keep(order, counts[0], text)
    if not head_adaptive:
        return keep
    level = _level(recall(mass, keep), recall_threshold)
    return _keep(order, torch.tensor(counts, device=mass.device)[level][..., None, None], text)


def recall(mass: Tensor, keep: Tensor) -> Tensor:
    """The share of the attention that falls into the kept blocks, (B, H)."""
    return (mass * keep).sum((-2, -1)) / mass.sum((-2, -1))


def head_sparsity(recalls: Tensor, sparsity: float, recall_threshold: float = 0.8) -> Tensor:
    """The sparsity of each head, (B, H), from the recall it has at the base sparsity, within each sample.

    The n heads of highest recall get (1 + s) / 2, the n of lowest recall (3 s - 1) / 2, the others s, which is the
    mean; n is the number of heads with a recall above the threshold, at most half of them.
    """
    return recalls.new_tensor(_levels(sparsity))[_level(recalls, recall_threshold)]


def _level(recalls: Tensor, threshold: float) -> Tensor:
    """0 for a head that has the base sparsity, 1 for the high one, 2 for the low one, (B, H)."""
    heads = recalls.shape[-1]
    n = (recalls > threshold).sum(-1, keepdim=True).clamp(max=heads // 2)
    rank = recalls.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return (rank < n).long() + 2 * (rank >= heads - n).long()


def _levels(sparsity: float) -> tuple[float, float, float]:
    """The base sparsity, the high and the low one."""
    if not 1 / 3 <= sparsity < 1:
        raise ValueError(
            "head-adaptive sparsity needs sparsity >= 1/3 (the low level (3s-1)/2 would be negative)"
            f" and below 1, got {sparsity}"
        )
    return sparsity, (1 + sparsity) / 2, max(0.0, (3 * sparsity - 1) / 2)


def _count(blocks: int, sparsity: float) -> int:
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} must be in [0, 1): it is the share of blocks that is left out")
    kept = round((1 - sparsity) * blocks)
    if kept == 0 and blocks > 0:
        raise ValueError(
            f"sparsity {sparsity:g} keeps no block of {blocks} per row; use smaller blocks or a lower sparsity"
        )
    return kept


def _is_text(tokens: int, block: int, video: tuple[int, int] | None) -> Tensor:
    """Which blocks hold a token that is not video, (P,)."""
    first, end = (0, tokens) if video is None else video
    if not 0 <= first < end <= tokens:
        raise ValueError(f"video={video} must be a range within the {tokens} tokens")
    start = torch.arange(0, tokens, block)
    return (start < first) | ((start + block).clamp(max=tokens) > end)


def _keep(order: Tensor, count: int | Tensor, text: Tensor) -> Tensor:
    """The first `count` blocks of each row in `order`, and all with text."""
    taken = (torch.arange(order.shape[-1], device=order.device) < count).expand_as(order)
    keep = torch.zeros(*order.shape[:-1], text.shape[-1], dtype=torch.bool, device=order.device)
    return keep.scatter(-1, order, taken) | text

"""Block-sparse attention by torch's FlexAttention: compiled on a GPU, with the whole map in memory on a CPU."""

from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, flex_attention
from torch.nn.attention.flex_attention import BlockMask as FlexMask

from kernels.block_sparse_attention._mask import BlockMask

PRIORITY = 5  # slower than Triton's and never chosen by `auto`: to compare with
REQUIRES = "float32, float16 or bfloat16"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.float16, torch.bfloat16)


def fits(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> str:
    if q.device.type == "cpu" and torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "gradients on a CPU"
    if q.device.type == "cuda" and mask.block not in (32, 64, 128):
        return f"blocks of {mask.block} tokens"
    return ""


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, *, scale: float | None = None, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    run = _compiled() if q.device.type == "cuda" and not torch.compiler.is_compiling() else flex_attention
    flex_mask = _flex_mask(mask, q.shape[0], q.shape[1])
    y, extra = run(q, k, v, block_mask=flex_mask, scale=scale, return_aux=AuxRequest(lse=return_lse))
    return (y, extra.lse) if return_lse else y


@cache
def _compiled():
    return torch.compile(flex_attention, dynamic=False)


def _flex_mask(mask: BlockMask, B: int, h: int) -> FlexMask:
    keep = mask.keep.expand(B, h, -1, -1)
    size, kinds, patterns = mask.block, mask.elements, mask.patterns
    if patterns is None:
        kinds, patterns = keep.new_full((1, 1, 1, 1), -1, dtype=torch.int16), keep.new_ones(1, size, size)
    kinds = kinds.expand_as(keep)

    def kept(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        at = b, h, i // size, j // size
        kind = kinds[at].int()
        return keep[at] & ((kind < 0) | patterns[kind.clamp(min=0), i % size, j % size])

    whole, part = keep & (kinds < 0), keep & (kinds >= 0)
    return FlexMask.from_kv_blocks(
        *_padded_lists(part), *_padded_lists(whole), BLOCK_SIZE=size, mask_mod=kept, seq_lengths=tuple(mask.tokens)
    )


def _padded_lists(keep: Tensor) -> tuple[Tensor, Tensor]:
    """(counts (B, h, nq), key blocks (B, h, nq, nk), the kept ones first), both int32."""
    return keep.sum(-1).int(), keep.int().argsort(dim=-1, descending=True, stable=True).int()

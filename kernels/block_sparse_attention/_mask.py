"""Which blocks of an attention map are computed, and which elements of those that are computed in part.

Shapes: B batch, h heads, T queries, S keys, nq = ceil(T / block), nk = ceil(S / block) blocks of them, n patterns.
A mask that is the same for all of a batch or for all heads has size 1 there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**22  # elements that are looked at together when a mask is made


class Lists(NamedTuple):
    """The kept blocks of each row of blocks, one row after the other (of each column, with the two exchanged).

    Row r of all B * h * nq has the entries starts[r] .. starts[r + 1]. Those from middle[r] on need a mask inside, for
    a pattern or because the block reaches beyond the last token.
    """

    starts: Tensor  # int32 (rows + 1,)
    middle: Tensor  # int32 (rows,)
    entries: Tensor  # int32 (kept blocks,): the block's place in its row
    kinds: Tensor  # int16 (kept blocks,): its pattern, -1 = whole; empty where the mask has no patterns
    order: Tensor  # int32 (rows,): places 0 .. nq - 1 for each (B, h), the row with most entries first


@dataclass(frozen=True, eq=False)
class BlockMask:
    """The keys that each query attends to, in blocks of block x block.

    keep: bool (B|1, h|1, nq, nk). tokens: (T, S); the last blocks may reach beyond them.
    elements: int16 of keep's shape, the pattern of a kept block's elements, -1 = all of them; patterns: bool
    (n, block, block). None where every kept block is kept whole.
    """

    keep: Tensor
    block: int
    tokens: tuple[int, int]
    elements: Tensor | None = None
    patterns: Tensor | None = None
    _made: dict[str, Lists | Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if self.block < 1:
            raise ValueError(f"BlockMask: block={self.block} must be at least 1 (GPU kernels: 16, 32, 64 or 128)")
        nq, nk = blocks_of(self.tokens, self.block)
        if self.keep.dtype != torch.bool or self.keep.dim() != 4 or tuple(self.keep.shape[2:]) != (nq, nk):
            raise ValueError(
                f"BlockMask: keep is {self.keep.dtype} {tuple(self.keep.shape)}, but blocks of {self.block} on"
                f" {self.tokens[0]} x {self.tokens[1]} tokens need torch.bool (B or 1, h or 1, {nq}, {nk})"
            )
        if (self.elements is None) != (self.patterns is None):
            raise ValueError("BlockMask: elements and patterns are given together or not at all")
        if self.elements is not None and (
            (self.elements.dtype, self.elements.shape) != (torch.int16, self.keep.shape)
            or (self.patterns.dtype, *self.patterns.shape[1:]) != (torch.bool, self.block, self.block)
        ):
            raise ValueError(
                f"BlockMask: elements {self.elements.dtype} {tuple(self.elements.shape)} must be torch.int16"
                f" {tuple(self.keep.shape)} and patterns {self.patterns.dtype} {tuple(self.patterns.shape)}"
                f" torch.bool (n, {self.block}, {self.block})"
            )

    @classmethod
    def from_lists(
        cls, starts: Tensor, entries: Tensor, block: int, tokens: tuple[int, int], batch: int = 1, heads: int = 1
    ) -> "BlockMask":
        """From ragged rows: row r of all batch * heads * nq keeps the key blocks entries[starts[r] : starts[r + 1]]."""
        nq, nk = blocks_of(tokens, block)
        rows = batch * heads * nq
        if len(starts) != rows + 1 or int(starts[-1]) != len(entries):
            raise ValueError(
                f"BlockMask.from_lists: starts has {len(starts)} values and ends at {int(starts[-1])}, it needs"
                f" {batch} * {heads} * {nq} + 1 = {rows + 1} and to end at the number of entries, {len(entries)}"
            )
        row = torch.repeat_interleave(torch.arange(rows, device=starts.device), starts.diff().long())
        keep = torch.zeros(rows, nk, dtype=torch.bool, device=starts.device)
        keep[row, entries.long()] = True
        return cls(keep.view(batch, heads, nq, nk), block, tuple(tokens))

    @classmethod
    def from_elements(
        cls,
        predicate: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        block: int,
        tokens: tuple[int, int],
        batch: int = 1,
        heads: int = 1,
        signature: Tensor | None = None,
    ) -> "BlockMask":
        """From `predicate(b, h, i, j)`: whether in head h of sample b query i attends to key j, on index tensors.

        signature: int64 (batch, heads, nq, nk), where given: only one of all blocks of equal signature is looked at.
        """
        nq, nk = blocks_of(tokens, block)
        if signature is None:
            signature = torch.arange(batch * heads * nq * nk).view(batch, heads, nq, nk)
        within = torch.arange(block, device=signature.device)

        def tiles(b: Tensor, h: Tensor, r: Tensor, c: Tensor) -> Tensor:
            i = (r[:, None] * block + within)[:, :, None].clamp(max=tokens[0] - 1)
            j = (c[:, None] * block + within)[:, None, :].clamp(max=tokens[1] - 1)
            return predicate(b[:, None, None], h[:, None, None], i, j).expand(len(r), block, block)

        return _from_tiles(tiles, signature, block, tokens)

    @property
    def density(self) -> float:
        """The share of all blocks that is computed, be it in part: the paper's sparsity is 1 - density."""
        return self.keep.double().mean().item()

    def to(self, device: torch.device | str) -> "BlockMask":
        elements, patterns = (None if x is None else x.to(device) for x in (self.elements, self.patterns))
        return BlockMask(self.keep.to(device), self.block, self.tokens, elements, patterns)

    def dense(self) -> Tensor:
        """All elements, bool (B|1, h|1, T, S), to read only: for small sizes, whose result is kept."""
        if "dense" in self._made:
            return self._made["dense"]
        index, table = self._table()
        made = table[index].transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, : self.tokens[0], : self.tokens[1]]
        if made.numel() <= CHUNK and not torch.compiler.is_compiling():
            self._made["dense"] = made
        return made

    def rows(self) -> Lists:
        """Of each query block the key blocks that it attends to; made once and kept."""
        return self._lists("rows")

    def columns(self) -> Lists:
        """Of each key block the query blocks that attend to it; made once and kept."""
        return self._lists("columns")

    def _lists(self, name: str) -> Lists:
        if name in self._made:
            return self._made[name]
        by_row = name == "rows"
        keep, elements = (x if by_row or x is None else x.transpose(2, 3) for x in (self.keep, self.elements))
        made = _lists(keep, elements, self.tokens[by_row] % self.block > 0)
        if not torch.compiler.is_compiling():
            self._made[name] = made
        return made

    def __or__(self, other: "BlockMask") -> "BlockMask":
        """The keys that either mask keeps."""
        if (self.block, *self.tokens) != (other.block, *other.tokens):
            raise ValueError(
                f"BlockMask: {self.block}-blocks on {self.tokens[0]} x {self.tokens[1]} tokens do not join with"
                f" {other.block}-blocks on {other.tokens[0]} x {other.tokens[1]}"
            )
        (index, table), (index_, table_) = self._table(), other._table()
        index, index_ = torch.broadcast_tensors(index, index_)
        return _from_tiles(
            lambda *at: table[index[at]] | table_[index_[at]], index * len(table_) + index_, self.block, self.tokens
        )

    def restricted(self, valid: Tensor) -> "BlockMask":
        """The mask without keys that are padding: valid is bool (B|1, S), False for padding."""
        nk = self.keep.shape[3]
        if valid.dtype != torch.bool or valid.dim() != 2 or valid.shape[1] != self.tokens[1]:
            raise ValueError(
                f"BlockMask.restricted: valid {valid.dtype} {tuple(valid.shape)} must be torch.bool (B or 1,"
                f" {self.tokens[1]})"
            )
        keys = F.pad(valid, (0, nk * self.block - valid.shape[1]), value=True).view(-1, nk, self.block)
        index, table = self._table()
        index = index.expand(torch.broadcast_shapes(index.shape, (len(keys), 1, 1, 1)))
        place = torch.arange(2, 2 + keys[..., 0].numel(), device=keys.device).view(-1, nk)
        place = torch.where(keys.all(-1), 1, torch.where(keys.any(-1), place, 0))[:, None, None]  # alike if all or none
        keys = keys.expand(len(index), -1, -1)
        return _from_tiles(
            lambda b, h, r, c: table[index[b, h, r, c]] & keys[b, c, None],
            place * len(table) + index,
            self.block,
            self.tokens,
        )

    def _table(self) -> tuple[Tensor, Tensor]:
        """(which of these tiles each block is, int64 of keep's shape; tiles (n + 2, block, block))."""
        tile = self.keep.new_zeros(1, self.block, self.block)
        patterns = tile[:0] if self.patterns is None else self.patterns
        index = self.keep.new_full((), -1, dtype=torch.long) if self.elements is None else self.elements.long()
        n = len(patterns)
        return torch.where(self.keep, torch.where(index < 0, n, index), n + 1), torch.cat([patterns, ~tile, tile])


def blocks_of(tokens: tuple[int, int], block: int) -> tuple[int, int]:
    """(nq, nk)"""
    return -(-tokens[0] // block), -(-tokens[1] // block)


def _lists(keep: Tensor, elements: Tensor | None, overhangs: bool) -> Lists:
    rows, width = keep.shape[:3].numel(), keep.shape[3]
    masked = torch.zeros_like(keep) if elements is None else keep & (elements >= 0)
    if overhangs:
        masked = masked | (keep & (torch.arange(width, device=keep.device) == width - 1))
    both = torch.cat([keep & ~masked, masked], dim=3).view(rows, 2 * width)  # first the whole, then the masked
    counts, whole = both.sum(1), both[:, :width].sum(1)
    ends = counts.cumsum(0)
    if torch.compiler.is_compiling():  # sizes that depend on the values would break the graph: as if all were kept
        place = torch.where(both.flatten(), both.flatten().cumsum(0) - 1, keep.numel())
        at = place.new_zeros(keep.numel() + 1).scatter_(0, place, torch.arange(both.numel(), device=keep.device))[:-1]
    else:
        at = both.flatten().nonzero()[:, 0]
    row, entry = at // (2 * width), at % width
    kinds = keep.new_empty(0, dtype=torch.int16) if elements is None else elements.reshape(rows, width)[row, entry]
    starts = F.pad(ends, (1, 0)).int()
    order = counts.view(-1, keep.shape[2]).argsort(dim=1, descending=True, stable=True)
    return Lists(starts, (ends - counts + whole).int(), entry.int(), kinds, order.flatten().int())


def _from_tiles(
    tiles: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], signature: Tensor, block: int, tokens: tuple[int, int]
) -> BlockMask:
    """The mask whose block at (b, h, row r, column c) is `tiles(b, h, r, c)`, looked at once for each signature."""
    shape, (nq, nk) = signature.shape, signature.shape[2:]
    device = signature.device
    last = 2 * (torch.arange(nq, device=device) == nq - 1)[:, None] + (torch.arange(nk, device=device) == nk - 1)
    distinct, inverse = torch.unique(signature * 4 + last, return_inverse=True)
    somewhere = torch.empty_like(distinct)
    somewhere[inverse.flatten()] = torch.arange(inverse.numel(), device=device)
    places = torch.stack(torch.unravel_index(somewhere, shape))
    kind = torch.full((len(distinct),), -2, dtype=torch.long, device=device)  # -2: nothing is kept
    found: dict[bytes, int] = {}
    inside = torch.arange(block, device=device)
    for chunk in torch.arange(len(distinct), device=device).split(max(1, CHUNK // block**2)):
        b, h, r, c = places[:, chunk]
        row, column = (at[:, None] * block + inside for at in (r, c))
        real = (row < tokens[0])[:, :, None] & (column < tokens[1])[:, None, :]
        made = tiles(b, h, r, c) & real
        kept, whole = made.sum((1, 2)), real.sum((1, 2))
        kind[chunk[kept == whole]] = -1
        part = (kept > 0) & (kept < whole)
        packed = np.packbits(made[part].flatten(1).cpu().numpy(), axis=1)
        kind[chunk[part]] = torch.tensor(
            [found.setdefault(x.tobytes(), len(found)) for x in packed], device=device
        ).long()
    if len(found) > torch.iinfo(torch.int16).max:
        raise ValueError(
            f"BlockMask: {len(found)} different block patterns, at most 32767 can be told apart: a mask without"
            " structure within its blocks is better kept in whole blocks (patterns.top_k)"
        )
    kinds = kind[inverse].view(shape)
    if not found:
        return BlockMask(kinds > -2, block, tuple(tokens))
    packed = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), -1)
    unpacked = np.unpackbits(packed, axis=1, count=block**2).reshape(-1, block, block)
    return BlockMask(
        kinds > -2, block, tuple(tokens), kinds.clamp(min=-1).short(), torch.from_numpy(unpacked).to(device).bool()
    )

"""The matrix profile from tiles of a matrix product, with a running maximum: never n x n.

The nearest neighbour of z_i has the largest z_i . z_j - (|z_i|^2 + |z_j|^2) / 2, a product of l + 2 features. That is
symmetric: a tile above the diagonal answers for its rows and for its columns. Windows are sorted by group, so those
which may not be neighbours stand in a few tiles at the diagonal. The distance to the one found is computed from the
difference of both: the product would cancel where they are alike.
Shapes: B sets, n windows, l steps.
"""

import torch
from torch import Tensor

from kernels.matrix_profile._windows import z_normalised

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

TILE = {"cpu": 512, "cuda": 8192}  # rows and columns of the scores in memory


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def matrix_profile(windows: Tensor, groups: Tensor, *, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    order = groups.argsort(stable=True)
    z, groups = z_normalised(windows[:, order], eps), groups[order]
    _, member, counts = groups.unique_consecutive(return_inverse=True, return_counts=True)
    stop = counts.cumsum(0)[member].tolist()
    index = torch.stack([_nearest(each, groups, stop) for each in z])  # in sorted order
    profile = torch.stack([(each - each[at]).norm(dim=-1) for each, at in zip(z, index, strict=True)])
    alone = index < 0
    profile, index = profile.masked_fill(alone, torch.inf), order[index].masked_fill(alone, -1)
    back = order.argsort()
    return profile[:, back], index[:, back]


def _nearest(z: Tensor, groups: Tensor, stop: list[int]) -> Tensor:
    """The nearest neighbour of each of (n, l) windows sorted by group; the group of window i ends before stop[i]."""
    n, tile = len(z), TILE.get(z.device.type, TILE["cuda"])
    half = -z.square().sum(-1, keepdim=True) / 2
    left, right = torch.cat((z, half, torch.ones_like(half)), 1), torch.cat((z, torch.ones_like(half), half), 1)
    top = z.new_full((n,), -torch.inf)
    nearest = torch.full((n,), -1, device=z.device)
    for i in range(0, n, tile):
        rows = slice(i, min(i + tile, n))
        last = stop[rows.stop - 1]  # where the groups of these windows end
        for j in range(i, n, tile):
            columns = slice(j, min(j + tile, n))
            scores = left[rows] @ right[columns].T
            if j < last:
                own = slice(j, min(last, columns.stop))
                scores[:, : own.stop - j].masked_fill_(groups[rows, None] == groups[own], -torch.inf)
            _improve(top, nearest, rows, *scores.max(1), j)
            if j > i:
                _improve(top, nearest, columns, *scores.max(0), i)
    return nearest


def _improve(top: Tensor, nearest: Tensor, part: slice, value: Tensor, at: Tensor, first: int) -> None:
    """Takes in the best scores of some windows, in place; `at` counts from `first`."""
    better = value > top[part]
    nearest[part] = torch.where(better, at + first, nearest[part])
    top[part] = torch.where(better, value, top[part])

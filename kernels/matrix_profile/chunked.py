"""The matrix profile from tiles of a matrix product, with a running maximum: never n x n.

The nearest neighbour of z_i has the largest z_i . z_j - |z_j|^2 / 2. Windows are sorted by group, so that those which
may not be neighbours stand in a few tiles around the diagonal. The distance to the one found is computed from the
difference of both: the matrix product would cancel where they are alike.
Shapes: B sets, n windows, l steps.
"""

import torch
from torch import Tensor

from kernels.matrix_profile._windows import z_normalised

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

TILE = {"cpu": (256, 2048), "cuda": (8192, 8192)}  # rows and columns of scores in memory at a time


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def matrix_profile(windows: Tensor, groups: Tensor, *, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    order = groups.argsort(stable=True)
    z, groups = z_normalised(windows[:, order], eps), groups[order]
    _, member, counts = groups.unique_consecutive(return_inverse=True, return_counts=True)
    stop = counts.cumsum(0)[member]
    start = stop - counts[member]
    index = torch.stack([_nearest(each, groups, start.tolist(), stop.tolist()) for each in z])  # in sorted order
    profile = torch.stack([(each - each[at]).norm(dim=-1) for each, at in zip(z, index, strict=True)])
    alone = index < 0
    profile, index = profile.masked_fill(alone, torch.inf), order[index].masked_fill(alone, -1)
    back = order.argsort()
    return profile[:, back], index[:, back]


def _nearest(z: Tensor, groups: Tensor, start: list[int], stop: list[int]) -> Tensor:
    """The nearest neighbour of each of (n, l) windows sorted by group; window i's group is start[i] to stop[i] - 1."""
    n = len(z)
    rows, columns = TILE.get(z.device.type, TILE["cuda"])
    shift = -z.square().sum(-1) / 2
    nearest = torch.full((n,), -1, device=z.device)
    for i in range(0, n, rows):
        part = slice(i, min(i + rows, n))
        low, high = start[part.start], stop[part.stop - 1]  # where these windows' own groups lie
        top = z.new_full((part.stop - i,), -torch.inf)
        for j in range(0, n, columns):
            scores = torch.addmm(shift[j : j + columns], z[part], z[j : j + columns].T)
            if j < high and low < j + columns:
                own = slice(max(low, j), min(high, j + columns))
                same = groups[part, None] == groups[own]
                scores[:, own.start - j : own.stop - j].masked_fill_(same, -torch.inf)
            value, at = scores.max(-1)
            better = value > top
            nearest[part] = torch.where(better, at + j, nearest[part])
            top = torch.where(better, value, top)
    return nearest

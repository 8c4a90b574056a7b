"""Best matches by matrix products: |q - w|^2 = |q|^2 + |w|^2 - 2 q . w for many patterns and offsets at once.

Patterns of one length and variate whose offsets overlap make a group: their subsequences are cut out once. Products
come in tiles that stay in cache, minima are taken over the leading dimension, where they are vectorised, and the
distance at the offset that is found is computed again by differences. What cancels in the products is small against
the spread of a series: the common level is taken off before, and where series differ by their level, or stand out of
their own spread, they are multiplied in float64.
Shapes: R offsets of a group, S its patterns, l their length; c series of a tile.
"""

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from kernels.subsequence_match._spans import checked
from kernels.subsequence_match.reference import complexities

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"

PRODUCTS = {"cpu": 2**17, "cuda": 2**26}  # distances in memory at a time
PATTERNS = {"cpu": 64, "cuda": 4096}  # of a tile
LEVEL = 30.0  # the largest value, in deviations of a series, that is multiplied in single precision


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


@torch.library.custom_op("runner::subsequence_match", mutates_args=())
def _match(x: Tensor, values: Tensor, spans: Tensor, lengths: Tensor | None, complexity: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    x_NBL, values = x.to(dtype).permute(2, 0, 1).contiguous(), values.to(dtype)
    N, B, L = x_NBL.shape
    distances = x_NBL.new_full((B, len(values)), torch.inf)
    offsets = torch.full((B, len(values)), -1, device=x.device)
    wide = [_stands_out(series) for series in x_NBL]
    with torch.autocast(x.device.type, enabled=False):
        for members, (length, variate, first, end) in _groups(checked(spans, values.shape[1], N), L):
            of = torch.tensor(members, device=x.device)
            series, patterns = x_NBL[variate, :, first : end + length - 1], values[of, :length]
            last = None if lengths is None else lengths - length - first
            barred = _barred(spans[members], first, end)
            for cases, rows, near, at in _matches(series, patterns, last, barred, complexity, wide[variate]):
                place = torch.arange(B, device=x.device)[cases, None], of[rows]
                distances[place], offsets[place] = near, torch.where(near.isinf(), -1, at + first)
    return distances, offsets


@_match.register_fake
def _(x, values, spans, lengths, complexity):
    shape = (x.shape[0], values.shape[0])
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32)), x.new_empty(shape, dtype=torch.int64)


def subsequence_match(
    x: Tensor, values: Tensor, spans: Tensor, *, lengths: Tensor | None = None, complexity: bool = False
) -> tuple[Tensor, Tensor]:
    return _match(x, values, spans, lengths, complexity)


def _groups(rows: list[tuple], steps: int) -> Iterator[tuple[list[int], tuple[int, int, int, int]]]:
    """(patterns, (length, variate, first, end)) that share their subsequences: the union of their offsets.

    A pattern joins while the union is at most twice its own offsets. Those without any are left out.
    """
    clipped = [(n, v, max(a, 0), min(e, steps - n + 1)) for n, v, a, e in rows]
    able = sorted((s for s, (_, _, a, e) in enumerate(clipped) if a < e), key=clipped.__getitem__)
    for (length, variate), same in groupby(able, key=lambda s: clipped[s][:2]):
        members, first, end = [], 0, 0
        for s in same:
            _, _, a, e = clipped[s]
            if members and max(end, e) - first > 2 * (e - a):
                yield members, (length, variate, first, end)
                members = []
            if not members:
                first, end = a, e
            members.append(s)
            end = max(end, e)
        yield members, (length, variate, first, end)


def _barred(spans: Tensor, first: int, end: int) -> Tensor | None:
    """inf where an offset of the group is not the pattern's, else 0: (R, S). None where all share all offsets."""
    offsets = torch.arange(first, end)[:, None]
    outside = (offsets < spans[:, 2]) | (offsets >= spans[:, 3])
    return torch.zeros(outside.shape).masked_fill_(outside, torch.inf) if outside.any() else None


def _stands_out(x_BL: Tensor) -> bool:
    """Whether the largest value is so far from the mean that squares of it would drown differences of a series."""
    return bool((x_BL - x_BL.mean()).abs().amax() > LEVEL * x_BL.std(1, correction=0).mean())


def _matches(
    series: Tensor, patterns: Tensor, last: Tensor | None, barred: Tensor | None, complexity: bool, wide: bool
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Series and patterns of a tile, least distances and their offsets, both (c, s), from 0 at the first step.

    series: (B, R + l - 1), patterns: (S, l), last: (B,) the last permitted offset, barred: (R, S).
    """
    (S, length), device = patterns.shape, series.device.type
    R, width = series.shape[1] - length + 1, min(S, PATTERNS.get(device, PATTERNS["cuda"]))
    height = max(1, PRODUCTS.get(device, PRODUCTS["cuda"]) // (R * width))
    dtype = torch.float64 if wide else series.dtype
    level = series.mean()
    q = (patterns - level).to(dtype)
    q = torch.cat((-2 * q, torch.ones_like(q[:, :1]), q.square().sum(-1, keepdim=True)), -1)
    of_q = complexities(patterns).to(dtype) if complexity else None
    offsets = torch.arange(R, device=series.device)
    for cases in _slices(len(series), height):
        windows = series[cases].unfold(1, length, 1).transpose(0, 1)  # (R, c, l)
        w = (windows - level).to(dtype)
        w = torch.cat((w, w.square().sum(-1, keepdim=True), torch.ones_like(w[..., :1])), -1)
        of_w = complexities(windows).to(dtype) if complexity else None
        beyond = None if last is None else (offsets[:, None] > last[cases])[..., None]
        for rows in _slices(S, width):
            d = w @ q[rows].mT  # |q - w|^2 as a product of l + 2 features, (R, c, s)
            if complexity:
                d.mul_(_ratio(of_w[..., None], of_q[rows]))
            if barred is not None:
                d.add_(barred[:, None, rows].to(d.device))
            if beyond is not None:
                d.masked_fill_(beyond, torch.inf)
            least = d.amin(0)
            reverse = torch.arange(R, 0, -1, device=d.device, dtype=dtype)[:, None, None]
            at = R - d.eq_(least).mul_(reverse).amax(0).long()  # the first of equals; faster than min with indices
            case = torch.arange(len(w[0]), device=d.device)[:, None]
            near = (series[cases].unfold(1, length, 1)[case, at] - patterns[rows]).square().mean(-1)
            if complexity:
                near = near * _ratio(of_w[at, case], of_q[rows]).to(near.dtype)
            yield cases, rows, near.masked_fill_(least.isinf(), torch.inf), at


def _slices(size: int, step: int) -> Iterator[slice]:
    for first in range(0, size, step):
        yield slice(first, first + step)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """The larger over the smaller."""
    ratio = a * (1 / b)
    return torch.maximum(ratio, (1 / a) * b, out=ratio)

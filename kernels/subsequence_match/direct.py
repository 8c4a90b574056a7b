"""Best matches of few patterns at once: all differences in memory, rows padded to the longest pattern.

Shapes: S patterns of at most W steps, R offsets of the pattern that has most.
"""

import torch
from torch import Tensor

from kernels.subsequence_match._spans import checked

PRIORITY = 11
REQUIRES = "a floating-point dtype"

MOST = 2**23  # differences in memory


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def fits(x: Tensor, values: Tensor, spans: Tensor, *, lengths: Tensor | None = None, complexity: bool = False) -> str:
    B, L, _ = x.shape
    return f"more than {MOST} differences" if B * L * values.numel() > MOST else ""


@torch.library.custom_op("runner::subsequence_match_direct", mutates_args=())
def _match(x: Tensor, values: Tensor, spans: Tensor, lengths: Tensor | None, complexity: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    (B, L, N), (S, W) = x.shape, values.shape
    checked(spans, W, N)
    length, variate, first, end = spans.unbind(1)
    first, end = first.clamp(min=0), torch.minimum(end, L - length + 1)
    R = int((end - first).amax()) if S else 0
    if R < 1:
        return x.new_full((B, S), torch.inf, dtype=dtype), x.new_full((B, S), -1, dtype=torch.int64)
    length, variate, first, end = (each.to(x.device)[:, None] for each in (length, variate, first, end))
    steps = torch.arange(R + W - 1, device=x.device)
    region = x.to(dtype)[:, (first + steps).clamp_(max=L - 1), variate]  # (B, S, R + W - 1)
    inside = steps[:W] < length
    values = values.to(dtype).masked_fill(~inside, 0.0)
    d = (region.unfold(2, W, 1) - values[:, None]).square_().mul_(inside[:, None]).sum(-1).div_(length)
    if complexity and W > 1:  # a single step has none
        inner = inside[:, 1:]
        of_windows = (region.diff().square_().unfold(2, W - 1, 1) * inner[:, None]).sum(-1).add_(1e-3)
        ratio = of_windows / (values.diff().square_().mul_(inner).sum(-1, keepdim=True) + 1e-3)
        d.mul_(torch.maximum(ratio, 1 / ratio))
    offsets = first + steps[:R]
    barred = offsets >= end
    if lengths is not None:
        barred = barred | (offsets > lengths[:, None, None] - length)
    least, at = d.masked_fill_(barred, torch.inf).min(-1)
    return least, torch.where(least.isinf(), -1, at + first[:, 0])


@_match.register_fake
def _(x, values, spans, lengths, complexity):
    shape = (x.shape[0], values.shape[0])
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32)), x.new_empty(shape, dtype=torch.int64)


def subsequence_match(
    x: Tensor, values: Tensor, spans: Tensor, *, lengths: Tensor | None = None, complexity: bool = False
) -> tuple[Tensor, Tensor]:
    return _match(x, values, spans, lengths, complexity)

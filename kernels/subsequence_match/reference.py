"""The best match of one pattern after the other among all subsequences: the definition of correct."""

import torch
from torch import Tensor

from kernels.subsequence_match._spans import checked

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def subsequence_match(
    x: Tensor, values: Tensor, spans: Tensor, *, lengths: Tensor | None = None, complexity: bool = False
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, values = x.to(dtype), values.to(dtype)
    B, L, N = x.shape
    distances = x.new_full((B, len(values)), torch.inf)
    offsets = torch.full((B, len(values)), -1, device=x.device)
    for s, (length, variate, first, end) in enumerate(checked(spans, values.shape[1], N)):
        first, end = max(first, 0), min(end, L - length + 1)
        if first >= end:
            continue
        pattern, windows = values[s, :length], x[:, first : end + length - 1, variate].unfold(1, length, 1)
        distance = (windows - pattern).square().mean(-1)
        if complexity:
            ratio = complexities(windows) / complexities(pattern)
            distance = distance * torch.maximum(ratio, 1 / ratio)
        if lengths is not None:
            beyond = torch.arange(first, end, device=x.device) > (lengths - length)[:, None]
            distance = distance.masked_fill(beyond, torch.inf)
        distances[:, s], offset = distance.min(1)
        offsets[:, s] = torch.where(distances[:, s].isinf(), -1, offset + first)
    return distances, offsets


def complexities(y: Tensor) -> Tensor:
    """c(y)^2, over the last dimension."""
    return y.diff(dim=-1).square().sum(-1) + 1e-3

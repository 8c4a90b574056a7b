"""Cross-entropy with all logits in memory, as the equation says: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    logits = F.linear(x, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    kept = target != ignore_index
    logit_of_target = logits.gather(1, torch.where(kept, target, 0)[:, None])[:, 0]
    loss = torch.logsumexp(logits, 1) - (1 - label_smoothing) * logit_of_target
    if label_smoothing > 0:  # a class may be ruled out by a bias of -inf without it
        loss = loss - label_smoothing * logits.mean(1)
    loss = loss.masked_fill(~kept, 0.0)
    if reduction == "none":
        return loss
    return loss.sum() / kept.sum().clamp(min=1) if reduction == "mean" else loss.sum()

"""The feed-forward network of a block (Vaswani et al. 2017, arXiv 1706.03762, eq. 2, with GELU)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from models import checks


class FeedForward(nn.Module):
    """Drop(W2 Drop(gelu(W1 x + b1)) + b2) on each token alone: (..., D) -> (..., D).

    bias: whether there are b1 and b2. activation: in gelu's place.
    """

    def __init__(
        self,
        dim: int,
        d_ff: int,
        dropout: float = 0.0,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.gelu,
    ):
        super().__init__()
        checks.whole("d_ff", d_ff)
        checks.fraction("dropout", dropout)
        self.up = nn.Linear(dim, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, dim, bias=bias)
        self.dropout, self.activation = nn.Dropout(dropout), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.dropout(self.activation(self.up(x)))))

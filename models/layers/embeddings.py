"""Embeddings of time steps: values, positions and time features, added up (Informer, arXiv 2012.07436, app. B).

Shapes: B batch, L steps, C channels, T time features, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StepEmbedding(nn.Module):
    """Drop(conv(x) + time(marks) + positions): (B, L, C), (B, L, T) -> (B, L, D), for L up to `length` steps.

    conv: kernel 3 over time, circular padding, no bias, Kaiming-normal. time: linear without bias, absent for marks=0.
    positions: sinusoids; False leaves them out.
    """

    def __init__(self, channels: int, marks: int, dim: int, length: int, dropout: float = 0.0, positions: bool = True):
        super().__init__()
        self.marks = marks
        self.values = nn.Conv1d(channels, dim, 3, bias=False)
        nn.init.kaiming_normal_(self.values.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.time = nn.Linear(marks, dim, bias=False) if marks else None
        self.register_buffer("positions", sinusoids(length, dim) if positions else None, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, marks_BLT: Tensor | None = None) -> Tensor:
        x_BCL = F.pad(x_BLC.transpose(1, 2), (1, 1), mode="circular")
        h = self.values(x_BCL).transpose(1, 2)
        if self.positions is not None:
            h = h + self.positions[: x_BLC.shape[1]]
        if self.time is not None:
            if marks_BLT is None:
                raise ValueError(f"this model was built for marks={self.marks} time features, the batch has none")
            h = h + self.time(marks_BLT)
        return self.dropout(h)


def sinusoids(length: int, dim: int) -> Tensor:
    """Positions as sines and cosines, (length, D) (Vaswani et al. 2017, arXiv 1706.03762, sec. 3.5).

    Column 2i is sin(t w_i), column 2i + 1 is cos(t w_i), with w_i = 10000^(-2i / D).
    """
    t = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.stack((torch.sin(t * rate), torch.cos(t * rate)), dim=-1).flatten(1)[:, :dim]

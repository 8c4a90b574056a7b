"""Flow-Attention (Flowformer, Wu et al. 2022, arXiv 2202.06258, eq. 4-9; from memory): linear in the number of tokens.

Notable: attention as a flow network with conserved flow. Tokens as sinks compete for what sources send, instead of a
softmax over pairs; no T x T matrix is ever made.
Shapes: B batch, T sink tokens, S source tokens, D width, h heads, d = D / h.
"""

import torch
from torch import Tensor, nn

from models import checks


class FlowAttention(nn.Module):
    """(B, T, D) -> (B, T, D), keys and values from a context (B, S, D) where one is given.

    With q = sigmoid(W_q x), k = sigmoid(W_k c) and flows summed over tokens:
        incoming I = q . sum k, outgoing O = k . sum q                      (what a sink receives, a source sends)
        conserved incoming I' = q . sum (k / O), outgoing O' = k . sum (q / I)
        y = sigmoid(I' T / S) * (q / I) (k^T (softmax_S(O') S * v))         (allocation, aggregation, competition)
    dropout acts on the output.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = 0.0, eps: float = 1e-6):
        super().__init__()
        checks.heads(dim, heads)
        checks.fraction("dropout", dropout)
        self.heads, self.eps = heads, eps
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        source = x_BTD if context_BSD is None else context_BSD
        q, k = self._split(self.q(x_BTD)).sigmoid(), self._split(self.k(source)).sigmoid()
        v = self._split(self.v(source))
        T, S = q.shape[-2], k.shape[-2]
        received = 1 / self._flow(q, k)  # (B, h, T, 1)
        sent = 1 / self._flow(k, q)  # (B, h, S, 1)
        allocation = torch.sigmoid(self._flow(q, k * sent) * (T / S))
        competition = torch.softmax(self._flow(k, q * received).clamp(-1, 1), dim=-2) * S
        y = (q * received) @ (k.transpose(-1, -2) @ (v * competition)) * allocation
        return self.dropout(self.o(y.transpose(1, 2).flatten(2)))

    def _flow(self, x: Tensor, y: Tensor) -> Tensor:
        """x_i . sum_j y_j for every token i: (B, h, tokens, 1)."""
        return (x + self.eps) @ (y.sum(dim=-2, keepdim=True) + self.eps).transpose(-1, -2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

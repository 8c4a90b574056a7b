"""Multi-head softmax attention (Vaswani et al. 2017, arXiv 1706.03762, sec. 3.2).

Shapes: B batch, T query tokens, S context tokens, D width, h heads, d = D / h.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kernels import attention
from kernels.attention.reference import attention as plain_attention
from models import checks


class Attention(nn.Module):
    """Drop(W_o concat_heads(softmax(q k^T / sqrt(d)) v)): (B, T, D) -> (B, T, D).

    dropout acts on the attention weights and, unless proj_dropout says otherwise, on the output. causal: token i sees
    tokens up to i. With a context of (B, S, D), keys and values come from there (cross attention).
    """

    def __init__(
        self, dim: int, heads: int = 8, dropout: float = 0.0, proj_dropout: float | None = None, causal: bool = False
    ):
        super().__init__()
        checks.heads(dim, heads)
        checks.fraction("dropout", dropout)
        checks.switch("causal", causal)
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.proj_dropout = dropout if proj_dropout is None else proj_dropout
        checks.fraction("proj_dropout", self.proj_dropout)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        source = x_BTD if context_BSD is None else context_BSD
        q, k, v = self._split(self.q(x_BTD)), self._split(self.k(source)), self._split(self.v(source))
        out = self.attend(q, k, v)
        return F.dropout(self.o(out.transpose(1, 2).flatten(2)), self.proj_dropout, self.training)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, h, T, d), k (B, h, S, d), v (B, h, S, e) -> (B, h, T, e)."""
        return attention(q, k, v, causal=self.causal, dropout=self.dropout if self.training else 0.0)

    def weights(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        """The attention weights, without dropout: (B, h, T, S), rows sum to 1."""
        source = x_BTD if context_BSD is None else context_BSD
        q, k = self._split(self.q(x_BTD)), self._split(self.k(source))
        one_hot = q.new_ones(source.shape[1]).diag().expand(*k.shape[:2], -1, -1)
        return plain_attention(q, k, one_hot, causal=self.causal)  # over one-hot values, the output is the weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

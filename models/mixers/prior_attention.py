"""Attention that knows more of its tokens than their contents: what labels say of them, or when they are.

Prior-enhanced: VSFormer (arXiv 2412.16515); by overlap: SVP-T (Zuo et al. 2023, AAAI). The first paper's formula could
not be had: a bias of two learnt numbers per head is this project's.
Shapes: B batch, G tokens, D width, h heads, d = D / h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import attention
from kernels.attention.reference import attention as plain_attention
from models.mixers.attention import Attention


class PriorAttention(Attention):
    """softmax(q k^T / sqrt(d) + lambda_h R + mu_h s) v: (B, G, D) -> (B, G, D), with R (G, G) and s (G,) for all alike.

    R_ij says how alike the priors of tokens i and j are, s_j how much token j tells. lambda and mu start at zero: then
    it is plain attention. Parameters: those of attention + 2 h.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = 0.0, proj_dropout: float | None = None):
        super().__init__(dim, heads, dropout, proj_dropout)
        self.alike = nn.Parameter(torch.zeros(heads))
        self.telling = nn.Parameter(torch.zeros(heads))

    def forward(self, x: Tensor, similarity: Tensor, strength: Tensor) -> Tensor:
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        bias = self._bias(similarity, strength).to(q.dtype)
        y = attention(q, k, v, mask=bias, dropout=self.dropout if self.training else 0.0)
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.proj_dropout, self.training)

    def weights(self, x: Tensor, similarity: Tensor, strength: Tensor) -> Tensor:
        """The attention weights: (B, h, G, G), rows sum to 1."""
        q, k = self._split(self.q(x)), self._split(self.k(x))
        one_hot = q.new_ones(x.shape[1]).diag().expand(*k.shape[:2], -1, -1)
        return plain_attention(q, k, one_hot, mask=self._bias(similarity, strength).to(q.dtype))

    def _bias(self, similarity: Tensor, strength: Tensor) -> Tensor:
        return (self.alike[:, None, None] * similarity + self.telling[:, None, None] * strength)[None]


class OverlapAttention(Attention):
    """SVP-T's rule (Zuo et al. 2023, AAAI): softmax(softmax(q k^T / sqrt(d)) m 1.5^o) v: (B, G, D) -> (B, G, D).

    o (B, G, G) is the time that tokens of different variates share, over L. m starts at zero: then all tokens are
    averaged. Parameters: those of attention + 1.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = 0.0, proj_dropout: float | None = None):
        super().__init__(dim, heads, dropout, proj_dropout)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, overlap: Tensor) -> Tensor:
        weights = F.dropout(self.weights(x, overlap), self.dropout, self.training)
        y = weights @ self._split(self.v(x))
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.proj_dropout, self.training)

    def weights(self, x: Tensor, overlap: Tensor) -> Tensor:
        """The attention weights: (B, h, G, G), rows sum to 1."""
        return torch.softmax(super().weights(x) * (self.scale * 1.5**overlap)[:, None], -1)

"""Attention that knows more of its tokens than their contents: what labels say of them, or when they are.

Prior-enhanced: VSFormer (arXiv 2412.16515); by overlap: SVP-T (Zuo et al. 2023, AAAI). The first paper's formula could
not be had: a bias of two learnt numbers per head is this project's.
Shapes: B batch, G tokens, C classes, D width, h heads, d = D / h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import attention
from kernels.attention.reference import attention as plain_attention
from models.mixers.attention import Attention


class PriorAttention(Attention):
    """softmax(q k^T / sqrt(d) + lambda_h R R^T + mu_h s) v: (B, G, D) -> (B, G, D), R (G, C) and s (G,) for all alike.

    R holds what labels say of each token, in rows of length 1: the product is their cosine. s_j is how much token j
    tells. lambda and mu start at zero: then it is plain attention. The bias rides along as C + 1 more features of q and
    k, so that no (h, G, G) tensor is made. Parameters: those of attention + 2 h.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = 0.0, proj_dropout: float | None = None):
        super().__init__(dim, heads, dropout, proj_dropout)
        self.alike = nn.Parameter(torch.zeros(heads))
        self.telling = nn.Parameter(torch.zeros(heads))

    def forward(self, x: Tensor, rows: Tensor, strength: Tensor) -> Tensor:
        q, k = self._with_prior(x, rows, strength)
        v = self._split(self.v(x))
        wide = F.pad(v, (0, q.shape[-1] - v.shape[-1]))  # torch's fused kernels take one width only
        y = attention(q, k, wide, scale=1.0, dropout=self.dropout if self.training else 0.0)[..., : v.shape[-1]]
        return F.dropout(self.o(y.transpose(1, 2).flatten(2)), self.proj_dropout, self.training)

    def weights(self, x: Tensor, rows: Tensor, strength: Tensor) -> Tensor:
        """The attention weights: (B, h, G, G), rows sum to 1."""
        q, k = self._with_prior(x, rows, strength)
        return plain_attention(q, k, q.new_ones(x.shape[1]).diag().expand(*k.shape[:2], -1, -1), scale=1.0)

    def _with_prior(self, x: Tensor, rows: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """q and k (B, h, G, d + C + 1), whose product is the scaled and biased score."""
        q, k = self._split(self.q(x)), self._split(self.k(x))
        known = torch.cat((rows, strength[:, None]), 1).to(k.dtype)
        asked = torch.cat((self.alike[:, None, None] * rows, self.telling[:, None, None].expand(-1, len(rows), 1)), -1)
        q = torch.cat((q * q.shape[-1] ** -0.5, asked.to(q.dtype).expand(len(q), -1, -1, -1)), -1)
        return q, torch.cat((k, known.expand(*k.shape[:2], -1, -1)), -1)


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

"""LSH attention (Reformer, Kitaev et al. 2020, arXiv 2001.04451, sec. 2): a token attends to those that hash alike.

Notable:
- queries are keys: one projection, so that similar tokens fall into the same bucket
- tokens sorted by bucket are cut into chunks; each attends to its own chunk and the one before, over several hashes
- the hash is drawn by torch's random state in training; evaluation has one fixed draw, so it repeats

Shapes: B batch, T tokens, P tokens with padding, D width, h heads, d = D / h, r hashes, m tokens of a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import checks

ONESELF = -5e4
"""Score of a token for itself: it counts only where there is nothing else to attend to."""


class LshAttention(nn.Module):
    """Drop(W_o sum over hashes of softmax over chunks): (B, T, D) -> (B, T, D), for self-attention only.

    Bucket of a token with query q: argmax([q R; -q R]) for a random R of d x (buckets / 2); scores q_i k_j / sqrt(d)
    with k = q / |q|. The hashes' outputs are averaged with the weights of their softmaxes' denominators. bucket: tokens
    of a chunk, m; there are P / m buckets. The tokens are padded to a multiple P of 2 m, and nothing attends to the
    padding. dropout acts on the output.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        dropout: float = 0.0,
        causal: bool = False,
        bucket: int = 4,
        hashes: int = 4,
    ):
        super().__init__()
        checks.heads(dim, heads)
        checks.fraction("dropout", dropout)
        checks.switch("causal", causal)
        checks.whole("bucket", bucket)
        checks.whole("hashes", hashes)
        self.heads, self.causal, self.bucket, self.hashes = heads, causal, bucket, hashes
        self.qk = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.o = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        T = x_BTD.shape[1]
        x_BPD = F.pad(x_BTD, (0, 0, 0, -T % (2 * self.bucket)))
        q, v = (part(x_BPD).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.qk, self.v))
        order = self.order(q)  # (B, h, r, P)
        q, v = (self._chunks(part, order) for part in (q, v))  # (B, h, r, P / m, m, d)
        k = F.normalize(q, dim=-1)
        k, v = (torch.cat((part, part.roll(1, dims=3)), dim=4) for part in (k, v))
        mine = order.unflatten(-1, (-1, self.bucket))
        theirs = torch.cat((mine, mine.roll(1, dims=3)), dim=4)[..., None, :]
        mine = mine[..., None]
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        hidden = (theirs >= T) | (theirs > mine) if self.causal else theirs >= T
        scores = scores.masked_fill(hidden, float("-inf")).masked_fill(theirs == mine, ONESELF)
        total = scores.logsumexp(dim=-1, keepdim=True)
        y = ((scores - total).exp() @ v).flatten(3, 4)
        back = order.argsort(dim=-1)[..., None]
        share = total.flatten(3, 4).gather(3, back).softmax(dim=2)
        y = (y.gather(3, back.expand_as(y)) * share).sum(2)[:, :, :T]
        return self.dropout(self.o(y.transpose(1, 2).flatten(2)))

    @torch.no_grad()
    def order(self, q: Tensor) -> Tensor:
        """The tokens sorted by bucket, then by position, for every hash: positions (B, h, r, P)."""
        P, d = q.shape[-2:]
        shape = (d, self.hashes, P // self.bucket // 2)
        if self.training:
            rotations = torch.randn(shape, device=q.device, dtype=q.dtype)
        else:
            fixed = torch.Generator().manual_seed(0)
            rotations = torch.randn(shape, generator=fixed, device="cpu").to(q)
        turned = torch.einsum("bhpd,drn->bhrpn", q, rotations)
        buckets = torch.cat((turned, -turned), dim=-1).argmax(-1)
        return (buckets * P + torch.arange(P, device=q.device)).argsort(dim=-1)

    def _chunks(self, x: Tensor, order: Tensor) -> Tensor:
        """(B, h, P, d) in each hash's order, cut into chunks: (B, h, r, P / m, m, d)."""
        spread = x[:, :, None].expand(-1, -1, self.hashes, -1, -1)
        return spread.gather(3, order[..., None].expand_as(spread)).unflatten(3, (-1, self.bucket))

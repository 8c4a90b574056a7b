"""ProbSparse attention (Informer, Zhou et al. 2020, arXiv 2012.07436, sec. 3.1): only the queries that matter attend.

Notable:
- a query matters where its scores are far from uniform, judged on a few sampled keys; only c ceil(ln T) queries attend
- sampled keys are gathered one per query at a time: O(T d) memory, never the (T, S, d) expansion
- keys are drawn by torch's random state in training; evaluation has one fixed draw, so it repeats

Shapes: B batch, T query tokens, S context tokens, D width, h heads, d = D / h.
"""

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import attention
from models import checks
from models.mixers.attention import Attention

log = logging.getLogger(__name__)


class ProbSparse(Attention):
    """Attention of the u = c ceil(ln T) queries with the largest M: (B, T, D) -> (B, T, D).

    M_i = max_j q_i k_j - sum_j q_i k_j / S over c ceil(ln S) keys j drawn for each query i. The other queries get the
    mean of the values or, causal, the sum of those up to their own. Which queries attend is chosen over all keys, later
    ones too, as in the paper's code; what they attend to is causal. factor: c. dropout acts on the output. Where u >= T
    it is full attention, which is logged once. With a context of (B, S, D), keys and values come from there.
    """

    def __init__(self, dim: int, heads: int = 8, dropout: float = 0.0, causal: bool = False, factor: int = 3):
        super().__init__(dim, heads, 0.0, dropout, causal)
        checks.whole("factor", factor)
        self.factor, self.told = factor, False

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T, S = q.shape[-2], k.shape[-2]
        count, samples = self._count(T), min(self._count(S), S)
        if count >= T:
            self._tell(count, T)
            return super().attend(q, k, v)
        top = self.sparsity(q, k, samples).topk(count, sorted=False).indices  # (B, h, u)
        seen = None
        if self.causal:
            seen = torch.arange(S, device=q.device) <= top[..., None]
            rest = running_sum(v)
        else:
            rest = v.mean(dim=-2, keepdim=True).expand(-1, -1, T, -1)
        chosen = q.gather(2, top[..., None].expand(-1, -1, -1, q.shape[-1]))
        attended = attention(chosen, k, v, mask=seen)
        return rest.scatter(2, top[..., None].expand_as(attended), attended)

    @torch.no_grad()
    def sparsity(self, q: Tensor, k: Tensor, samples: int) -> Tensor:
        """M of every query, (B, h, T)."""
        T, S = q.shape[-2], k.shape[-2]
        if self.training:
            drawn = torch.randint(S, (T, samples), device=q.device)
        else:
            fixed = torch.Generator().manual_seed(0)
            drawn = torch.randint(S, (T, samples), generator=fixed, device="cpu").to(q.device)
        largest = total = None
        for keys in drawn.unbind(1):
            scores = (q * k[:, :, keys]).sum(-1)
            largest = scores if largest is None else torch.maximum(largest, scores)
            total = scores if total is None else total + scores
        return largest - total / S

    def weights(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        """What each query makes of the values: (B, h, T, S). A causal one that doesn't attend has 1 up to itself."""
        source = x_BTD if context_BSD is None else context_BSD
        q, k = self._split(self.q(x_BTD)), self._split(self.k(source))
        one_hot = q.new_ones(source.shape[1]).diag().expand(*k.shape[:2], -1, -1)
        return self.attend(q, k, one_hot)

    def _count(self, tokens: int) -> int:
        return max(1, self.factor * math.ceil(math.log(tokens)))

    def _tell(self, count: int, tokens: int) -> None:
        if not self.told:
            log.info(f"factor={self.factor} picks {count} queries and there are {tokens}: all of them attend")
            self.told = True


def running_sum(x: Tensor) -> Tensor:
    """x_1 + ... + x_t for every token t of (..., T, d), by doubling.

    torch.cumsum is not deterministic on a GPU, where trainer.deterministic refuses it.
    """
    step = 1
    while step < x.shape[-2]:
        x = x + F.pad(x, (0, 0, step, -step))
        step *= 2
    return x

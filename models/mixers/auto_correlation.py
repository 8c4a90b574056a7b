"""Auto-Correlation (Autoformer, Wu et al. 2021, arXiv 2106.13008, sec. 3.2): attention to shifts, not to steps.

Notable:
- the series' correlation with itself at every delay comes from one FFT; the k best delays share a softmax
- scores are averaged over all channels, so heads make no difference and there are none
- the sum over shifted values is itself a correlation with k weights: one more FFT, no copy of the values per delay
- training picks one set of delays per batch, evaluation one per sample, as the paper's code does

Shapes: B batch, T query tokens, S context tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import checks


class AutoCorrelation(nn.Module):
    """Drop(W_o sum_i w_i roll(v, -tau_i)): (B, T, D) -> (B, T, D).

    R(tau) = mean over channels of irfft(rfft(q) conj(rfft(k))); tau_1..k are the k = floor(c ln T) delays with the
    largest R, w = softmax(R(tau_1..k)). factor: c. dropout acts on the output. With a context of (B, S, D), keys and
    values come from there, cut to T tokens or padded with zeros.
    """

    def __init__(self, dim: int, factor: int = 3, dropout: float = 0.0):
        super().__init__()
        checks.whole("d_model", dim)
        checks.whole("factor", factor)
        checks.fraction("dropout", dropout)
        self.factor = factor
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        T, source = x_BTD.shape[1], x_BTD if context_BSD is None else context_BSD
        q = self.q(x_BTD)
        k, v = (F.pad(part, (0, 0, 0, T - part.shape[1])) for part in (self.k(source), self.v(source)))
        delays, weights = self.delays(correlation(q, k))
        y = shifted(v, delays, weights)
        return self.dropout(self.o(y.to(q.dtype)))

    def delays(self, scores_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The best delays and their weights, both (B, k)."""
        B, T = scores_BT.shape
        count = min(T, max(1, int(self.factor * math.log(T))))
        ranked = scores_BT.mean(dim=0, keepdim=True) if self.training else scores_BT
        delays = ranked.topk(count).indices.expand(B, -1)
        return delays, scores_BT.gather(1, delays).softmax(dim=-1)


def correlation(q_BTD: Tensor, k_BTD: Tensor) -> Tensor:
    """R(tau) = sum_t q_(t + tau) k_t, circular, averaged over channels: (B, T), in float32 at least."""
    product = spectrum(q_BTD) * spectrum(k_BTD).conj()
    return torch.fft.irfft(product.mean(dim=-1), n=q_BTD.shape[1])


def shifted(v_BTD: Tensor, delays_Bk: Tensor, weights_Bk: Tensor) -> Tensor:
    """sum_i w_i v_((t + tau_i) mod T): (B, T, D), by the correlation with a series that is w_i at tau_i, else 0."""
    B, T = v_BTD.shape[:2]
    comb_BT = weights_Bk.new_zeros(B, T).scatter(1, delays_Bk, weights_Bk)
    return torch.fft.irfft(spectrum(v_BTD) * spectrum(comb_BT[..., None]).conj(), n=T, dim=1)


def spectrum(x_BTC: Tensor) -> Tensor:
    """rfft over the tokens; half precision has none, so it is taken in float32."""
    return torch.fft.rfft(x_BTC if x_BTC.dtype == torch.float64 else x_BTC.float(), dim=1)

"""Frequency enhanced block and attention (FEDformer-f, Zhou et al. 2022, arXiv 2201.12740, sec. 3.2).

Notable:
- tokens are mixed in the frequency domain, on a few modes drawn once: linear in their number
- the modes come from a seed and lie in the checkpoint, so that a model means the same wherever it is loaded
- the weights of the modes are one set for all encoder blocks, one for all decoder blocks, one for all cross blocks

Shapes: B batch, T query tokens, S context tokens, D width, h heads, d = D / h, M modes (N of the context).
"""

import logging

import torch
from torch import Tensor, nn

from models import checks
from models.mixers.auto_correlation import spectrum

log = logging.getLogger(__name__)
QUIRKS = ("none", "official")


class FourierMixer(nn.Module):
    """Drop(W_o irfft(scatter(W_m rfft(W_q x)_m))), a complex d x d matrix W_m per head and mode m: (B, T, D) -> same.

    With `context_length` it is the cross block and forward takes a context (B, S, D): for the modes Q (d x M) of the
    query and K (d x N) of the context, per head, A = tanh(Q^T K) on real and imaginary part each, and the output's
    modes are W_m (K A^T)_m / D^2.

    length, context_length: T and S, which the architecture states; forward takes no other. modes: at most this many of
    them, T // 2 at most. seed: draws them. Real parameters of W: 2 h d^2 M, uniform in [0, 1 / D^2).
    quirk: "official" is the authors' code, in which the block without context writes its results to the M lowest
    frequencies instead of back to their own, and projections that nothing reads (keys and values, here without
    gradient) are among the parameters; "none" has neither.
    """

    def __init__(
        self,
        dim: int,
        length: int | None = None,
        context_length: int | None = None,
        heads: int = 8,
        dropout: float = 0.0,
        modes: int = 64,
        seed: int = 0,
        quirk: str = "none",
    ):
        super().__init__()
        checks.heads(dim, heads)
        checks.fraction("dropout", dropout)
        checks.choice("quirk", quirk, QUIRKS)
        if length is None:
            raise ValueError(
                "length=None: Fourier modes belong to a fixed number of tokens, which this model does not state:"
                " choose another mixer, or set +model.mixer.length to it"
            )
        self.heads, self.length, self.context_length, self.quirk = heads, length, context_length, quirk
        official, cross = quirk == "official", context_length is not None
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim).requires_grad_(cross) if cross or official else None
        self.v = nn.Linear(dim, dim).requires_grad_(False) if official else None
        self.o = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.maps = ModeMaps(dim, heads, length, context_length, modes, seed)

    def share(self, first: "FourierMixer") -> None:
        """Uses the modes and the weights of another layer's mixer, if that has as many tokens."""
        if (self.length, self.context_length) == (first.length, first.context_length):
            self.maps = first.maps

    def forward(self, x_BTD: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        lengths = x_BTD.shape[1], None if context_BSD is None else context_BSD.shape[1]
        if lengths != (self.length, self.context_length):
            raise ValueError(
                f"got {lengths[0]} tokens and a context of {lengths[1]}, built for length={self.length} and"
                f" context_length={self.context_length}"
            )
        maps = self.maps
        modes = self._modes(self.q(x_BTD), maps.modes)
        if context_BSD is not None:
            context = self._modes(self.k(context_BSD), maps.context_modes)
            scores = torch.einsum("bmhd,bnhd->bhmn", modes, context)
            scores = torch.complex(scores.real.tanh(), scores.imag.tanh())
            modes = torch.einsum("bhmn,bnhd->bmhd", scores, context) / x_BTD.shape[-1] ** 2
        weight = torch.view_as_complex(maps.weight.to(modes.real.dtype))
        modes = torch.einsum("bmhd,hdem->bmhe", modes, weight).flatten(2)
        lowest = self.quirk == "official" and context_BSD is None
        bins = torch.arange(modes.shape[1], device=modes.device) if lowest else maps.modes
        full = modes.new_zeros(len(modes), self.length // 2 + 1, modes.shape[-1]).index_copy(1, bins, modes)
        y = torch.fft.irfft(full, n=self.length, dim=1)
        return self.dropout(self.o(y.to(x_BTD.dtype)))

    def _modes(self, x_BTD: Tensor, modes_M: Tensor) -> Tensor:
        return spectrum(x_BTD).index_select(1, modes_M).unflatten(-1, (self.heads, -1))  # (B, M, h, d)


class ModeMaps(nn.Module):
    """The drawn modes and their weights: what layers share. `weight` (h, d, d, M, 2) is real, imaginary part last."""

    def __init__(self, dim: int, heads: int, length: int, context_length: int | None, modes: int, seed: int):
        super().__init__()
        chosen = draw_modes("length", length, modes, seed)
        self.register_buffer("modes", chosen)
        context = None if context_length is None else draw_modes("context_length", context_length, modes, seed)
        self.register_buffer("context_modes", context)
        self.weight = nn.Parameter(torch.rand(heads, dim // heads, dim // heads, len(chosen), 2) / dim**2)


def draw_modes(name: str, length: int, modes: int, seed: int) -> Tensor:
    """min(modes, length // 2) frequencies below length // 2, drawn without torch's random state, rising."""
    checks.whole("modes", modes)
    checks.whole("seed", seed, least=0)
    checks.whole(name, length, least=2)
    if modes > length // 2:
        log.info(f"modes={modes} is more than half of {name}={length}: {length // 2} are used")
    drawn = torch.randperm(length // 2, generator=torch.Generator().manual_seed(seed), device="cpu")
    return drawn[:modes].sort().values

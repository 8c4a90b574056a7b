"""Post-norm encoder and decoder blocks. B batch, T and S tokens, D width, C channels of the series."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.decomposition import SeriesDecomposition
from models.layers.ffn import FeedForward

Mixer = Callable[[int], nn.Module]
"""Builds, from the width D, a module (B, T, D) -> (B, T, D): a class of models/mixers with the rest bound."""


def bind(mixer: Mixer, **facts: Any) -> Mixer:
    """The mixer with those facts bound that its signature takes; what it doesn't take it does without.

    Facts are what only the architecture knows: `causal` (the tokens are a decoder's), `length` (T) and, for cross
    attention, `context_length` (S).
    """
    known = inspect.signature(mixer).parameters
    return partial(mixer, **{name: value for name, value in facts.items() if name in known})


def takes_context(mixer: Mixer) -> bool:
    """Whether what the mixer builds can do cross attention: forward(x (B, T, D), context_BSD (B, S, D))."""
    while isinstance(mixer, partial):
        mixer = mixer.func
    return isinstance(mixer, type) and "context_BSD" in inspect.signature(mixer.forward).parameters


def share(mixers: Iterable[nn.Module]) -> None:
    """Mixers that have `share` take from the first what their paper has once for all layers (FEDformer's weights)."""
    first, *others = mixers
    for mixer in others:
        if hasattr(mixer, "share"):
            mixer.share(first)


class EncoderBlock(nn.Module):
    """x = LN(x + mixer(x)); x = LN(x + ffn(x)): (B, T, D) -> (B, T, D). Dropout on the mixer's output is its own.

    norm: builds, from the width, what stands for LN; a `Season` there makes it Autoformer's encoder block. bias: of the
    feed-forward network.
    """

    def __init__(
        self,
        dim: int,
        d_ff: int,
        mixer: Mixer,
        dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
        bias: bool = True,
    ):
        super().__init__()
        self.mixer = mixer(dim)
        self.norm1 = norm(dim)
        self.ffn = FeedForward(dim, d_ff, dropout, bias)
        self.norm2 = norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.mixer(x))
        return self.norm2(x + self.ffn(x))


class DecoderBlock(nn.Module):
    """x = LN(x + mixer(x)); x = LN(x + cross(x, memory)); x = LN(x + ffn(x)).

    x: (B, T, D), memory (the encoder's output): (B, S, D) -> (B, T, D). `cross` builds a mixer that takes a context.
    """

    def __init__(self, dim: int, d_ff: int, mixer: Mixer, cross: Mixer, dropout: float = 0.0):
        super().__init__()
        self.mixer = mixer(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross = cross(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, d_ff, dropout)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norm1(x + self.mixer(x))
        x = self.norm2(x + self.cross(x, memory))
        return self.norm3(x + self.ffn(x))


class SeasonalDecoderBlock(nn.Module):
    """A decoder block that keeps the season and hands out the trend (Autoformer, arXiv 2106.13008, eq. 4).

    s, t1 = split(x + mixer(x)); s, t2 = split(s + cross(s, memory)); s, t3 = split(s + ffn(s)), where split is a
    `SeriesDecomposition` over the T steps. x: (B, T, D), memory: (B, S, D) -> s: (B, T, D), conv(t1 + t2 + t3):
    (B, T, C), with a conv of kernel 3 over time, circular padding, no bias. The feed-forward network has no bias.
    """

    def __init__(
        self,
        dim: int,
        d_ff: int,
        mixer: Mixer,
        cross: Mixer,
        dropout: float,
        channels: int,
        split: SeriesDecomposition,
    ):
        super().__init__()
        self.mixer = mixer(dim)
        self.cross = cross(dim)
        self.ffn = FeedForward(dim, d_ff, dropout, bias=False)
        self.trend = nn.Conv1d(dim, channels, 3, bias=False)
        self.split = split

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        x, first = self.split.of_steps(x + self.mixer(x))
        x, second = self.split.of_steps(x + self.cross(x, memory))
        x, third = self.split.of_steps(x + self.ffn(x))
        removed = (first + second + third).transpose(1, 2)
        return x, self.trend(F.pad(removed, (1, 1), mode="circular")).transpose(1, 2)


class Distil(nn.Module):
    """Halves the tokens between encoder blocks: maxpool(ELU(BN(conv(x)))) (Informer, arXiv 2012.07436, eq. 5).

    (B, T, D) -> (B, `distilled(T)`, D). conv: kernel 3, circular padding of 2 on either side, so it adds two tokens;
    maxpool: kernel 3, stride 2, padding 1.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.pad(x.transpose(1, 2), (2, 2), mode="circular"))
        return F.max_pool1d(F.elu(self.norm(x)), 3, stride=2, padding=1).transpose(1, 2)


def distilled(length: int) -> int:
    """How many of `length` tokens `Distil` leaves: floor((T + 1) / 2) + 1."""
    return (length + 1) // 2 + 1

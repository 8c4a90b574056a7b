"""Post-norm encoder and decoder blocks. B batch, T and S tokens, D width."""

from collections.abc import Callable

from torch import Tensor, nn

from models.layers.ffn import FeedForward

Mixer = Callable[[int], nn.Module]
"""Builds, from the width D, a module (B, T, D) -> (B, T, D): a class of models/mixers with the rest bound."""


class EncoderBlock(nn.Module):
    """x = LN(x + mixer(x)); x = LN(x + ffn(x)): (B, T, D) -> (B, T, D). Dropout on the mixer's output is its own."""

    def __init__(self, dim: int, d_ff: int, mixer: Mixer, dropout: float = 0.0):
        super().__init__()
        self.mixer = mixer(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, d_ff, dropout)
        self.norm2 = nn.LayerNorm(dim)

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

"""Encoder-decoder forecaster: the Transformer of Vaswani et al. (2017, arXiv 1706.03762) as time series papers use it.

Notable:
- a token is a time step with all variates, embedded by a convolution, plus time features and positions
- the decoder gets the last label_len known steps and zeros for the horizon, and forecasts all of it in one pass
  (Informer, arXiv 2012.07436, sec. 4.3); a survey of the family is arXiv 2202.07125
- the family differs in its mixer and in three switches: distil and ProbSparse make it Informer; decomposition without
  positions and Auto-Correlation make it Autoformer (arXiv 2106.13008), with Fourier modes FEDformer (arXiv 2201.12740)
- use_norm adds the instance normalisation of iTransformer, which gives much of that paper's gain: the fairer baseline

Shapes: B batch, L look-back, H horizon, N variates, T time features, D width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models import checks
from models.layers.blocks import (
    DecoderBlock,
    Distil,
    EncoderBlock,
    Mixer,
    SeasonalDecoderBlock,
    bind,
    distilled,
    share,
    takes_context,
)
from models.layers.decomposition import Season, SeasonNorm, SeriesDecomposition
from models.layers.embeddings import StepEmbedding
from models.layers.instance_norm import denormalise, normalise
from models.mixers.attention import Attention


class Transformer(nn.Module):
    """Forecasts H steps of N variates from their last L, (B, L, N) -> (B, H, N).

    marks: number of time features T in the data, 0 for none. label_len: known steps the decoder sees, at most L.
    depth, decoder_depth: blocks of encoder and decoder. mixer: builds the token mixers from the width; None is
    attention with `heads` and `dropout`. It mixes in the encoder, in the decoder (causal where it can be) and between
    them; where it takes no context (lsh, Mamba, none), attention stands between them.
    positions: sinusoids in the embedding. distil: halve the tokens between encoder blocks.
    decomposition: blocks keep the season of a `moving_average` and add the trend that they remove to the forecast's,
    which starts as the mean of the window (Autoformer, arXiv 2106.13008, eq. 2-4). It stands for the layer norms.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        variates: int,
        marks: int,
        d_model: int = 512,
        depth: int = 2,
        decoder_depth: int = 1,
        heads: int = 8,
        d_ff: int = 2048,
        dropout: float = 0.05,
        label_len: int = 48,
        use_norm: bool = False,
        mixer: Mixer | None = None,
        positions: bool = True,
        distil: bool = False,
        decomposition: bool = False,
        moving_average: int = 25,
    ):
        super().__init__()
        sizes = {"lookback": lookback, "horizon": horizon, "variates": variates, "depth": depth}
        for name, value in {**sizes, "decoder_depth": decoder_depth}.items():
            checks.whole(name, value)
        checks.whole("marks", marks, least=0)
        checks.heads(d_model, heads)
        checks.fraction("dropout", dropout)
        switches = {"use_norm": use_norm, "positions": positions, "distil": distil, "decomposition": decomposition}
        for name, value in switches.items():
            checks.switch(name, value)
        checks.factory("mixer", mixer)
        check_lengths(lookback, label_len, moving_average if decomposition else 0)
        self.lookback, self.horizon, self.variates, self.marks = lookback, horizon, variates, marks
        self.label_len, self.use_norm = label_len, use_norm
        self.window = moving_average if decomposition else None
        self.split = SeriesDecomposition(moving_average, lookback) if decomposition else None
        attention = partial(Attention, heads=heads, dropout=dropout)
        mixer = mixer or attention
        norm = SeasonNorm if decomposition else nn.LayerNorm
        self.embed = StepEmbedding(variates, marks, d_model, lookback, dropout, positions)
        lengths = encoder_lengths(lookback, depth, distil)
        self.encoder = nn.ModuleList(self._encoder_block(n, d_model, d_ff, mixer, dropout) for n in lengths)
        self.distil = nn.ModuleList(Distil(d_model) for _ in lengths[1:] if distil)
        self.encoder_norm = norm(d_model)
        self.decoder_embed = StepEmbedding(variates, marks, d_model, label_len + horizon, dropout, positions)
        cross = bind(mixer if takes_context(mixer) else attention, context_length=lengths[-1])
        self.decoder = nn.ModuleList(
            self._decoder_block(d_model, d_ff, mixer, cross, dropout) for _ in range(decoder_depth)
        )
        self.decoder_norm = norm(d_model)
        self.project = nn.Linear(d_model, variates)
        share(block.mixer for block in self.encoder)
        share(block.mixer for block in self.decoder)
        share(block.cross for block in self.decoder)

    def _encoder_block(self, length: int, dim: int, d_ff: int, mixer: Mixer, dropout: float) -> nn.Module:
        mixer = bind(mixer, length=length)
        if self.window is None:
            return EncoderBlock(dim, d_ff, mixer, dropout)
        return EncoderBlock(dim, d_ff, mixer, dropout, norm=lambda _: Season(self.window, length), bias=False)

    def _decoder_block(self, dim: int, d_ff: int, mixer: Mixer, cross: Mixer, dropout: float) -> nn.Module:
        length = self.label_len + self.horizon
        mixer, cross = bind(mixer, causal=True, length=length), bind(cross, length=length)
        if self.window is None:
            return DecoderBlock(dim, d_ff, mixer, cross, dropout)
        split = SeriesDecomposition(self.window, length)
        return SeasonalDecoderBlock(dim, d_ff, mixer, cross, dropout, self.variates, split)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        self._check_batch(x_BLN, marks_BLT, future_marks_BHT)
        if self.use_norm:
            x_BLN, mean, std = normalise(x_BLN)
        memory = self.encode(x_BLN, marks_BLT)
        known = slice(self.lookback - self.label_len, self.lookback)
        marks = torch.cat((marks_BLT[:, known], future_marks_BHT), dim=1) if self.marks else None
        zeros = x_BLN.new_zeros(len(x_BLN), self.horizon, self.variates)
        if self.window is None:
            h = self.decoder_embed(torch.cat((x_BLN[:, known], zeros), dim=1), marks)
            for block in self.decoder:
                h = block(h, memory)
            y_BHN = self.project(self.decoder_norm(h[:, -self.horizon :]))
        else:
            season, trend = self.split.of_steps(x_BLN)
            h = self.decoder_embed(torch.cat((season[:, known], zeros), dim=1), marks)
            trend = torch.cat((trend[:, known], zeros + x_BLN.mean(dim=1, keepdim=True)), dim=1)
            for block in self.decoder:
                h, removed = block(h, memory)
                trend = trend + removed
            y_BHN = (self.project(self.decoder_norm(h)) + trend)[:, -self.horizon :]
        return denormalise(y_BHN, mean, std) if self.use_norm else y_BHN

    def encode(self, x_BLN: Tensor, marks_BLT: Tensor | None = None) -> Tensor:
        """The encoder's output, (B, L, D), of fewer tokens where it distils."""
        memory = self.embed(x_BLN, marks_BLT)
        for i, block in enumerate(self.encoder):
            memory = block(memory)
            if i < len(self.distil):
                memory = self.distil[i](memory)
        return self.encoder_norm(memory)

    def _check_batch(self, x_BLN: Tensor, marks: Tensor | None, future_marks: Tensor | None) -> None:
        if x_BLN.shape[1:] != (self.lookback, self.variates):
            raise ValueError(
                f"the window has {x_BLN.shape[1]} steps of {x_BLN.shape[2]} variates, the model was built for"
                f" lookback={self.lookback} and variates={self.variates}"
            )
        if self.marks and (marks is None or future_marks is None):
            raise ValueError(
                f"the model was built for marks={self.marks} time features, but the batch lacks them for the window or"
                " the horizon: give the data a date column, or train with data.marks=0"
            )


def check_lengths(lookback: int, label_len: int, moving_average: int) -> None:
    """The decoder's known steps lie in the window, and the window is longer than what a trend averages over."""
    checks.whole("label_len", label_len, least=0)
    if label_len > lookback:
        raise ValueError(f"label_len={label_len} is longer than lookback={lookback}: choose 0 to {lookback}")
    checks.whole("moving_average", moving_average, least=0)
    if moving_average >= lookback:
        raise ValueError(
            f"lookback={lookback} is not above moving_average={moving_average}: choose a longer look-back,"
            " a shorter average, or decomposition=false"
        )


def encoder_lengths(lookback: int, depth: int, distil: bool) -> list[int]:
    """The number of tokens in each block."""
    lengths = [lookback]
    while len(lengths) < depth:
        lengths.append(distilled(lengths[-1]) if distil else lengths[-1])
    return lengths

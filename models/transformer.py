"""Encoder-decoder forecaster: the Transformer of Vaswani et al. (2017, arXiv 1706.03762) as time series papers use it.

Notable:
- a token is a time step with all variates, embedded by a convolution, plus time features and positions
- the decoder gets the last label_len known steps and zeros for the horizon, and forecasts all of it in one pass
  (Informer, arXiv 2012.07436, sec. 4.3); a survey of the family is arXiv 2202.07125
- use_norm adds the instance normalisation of iTransformer, which gives much of that paper's gain: the fairer baseline

Shapes: B batch, L look-back, H horizon, N variates, T time features, D width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models import checks
from models.layers.blocks import DecoderBlock, EncoderBlock, Mixer
from models.layers.embeddings import StepEmbedding
from models.layers.instance_norm import denormalise, normalise
from models.mixers.attention import Attention


class Transformer(nn.Module):
    """Forecasts H steps of N variates from their last L, (B, L, N) -> (B, H, N).

    marks: number of time features T in the data, 0 for none. label_len: known steps the decoder sees, at most L.
    depth, decoder_depth: blocks of encoder and decoder. mixer: builds the encoder's token mixer from the width; None is
    attention with `heads` and `dropout`. The decoder always has attention, causal over its own tokens.
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
    ):
        super().__init__()
        sizes = {"lookback": lookback, "horizon": horizon, "variates": variates, "depth": depth}
        for name, value in {**sizes, "decoder_depth": decoder_depth}.items():
            checks.whole(name, value)
        checks.whole("marks", marks, least=0)
        checks.whole("label_len", label_len, least=0)
        checks.heads(d_model, heads)
        checks.fraction("dropout", dropout)
        checks.switch("use_norm", use_norm)
        checks.factory("mixer", mixer)
        if label_len > lookback:
            raise ValueError(f"label_len={label_len} is longer than lookback={lookback}: choose 0 to {lookback}")
        self.lookback, self.horizon, self.variates, self.marks = lookback, horizon, variates, marks
        self.label_len, self.use_norm = label_len, use_norm
        attention = partial(Attention, heads=heads, dropout=dropout)
        mixer, causal = mixer or attention, partial(attention, causal=True)
        self.embed = StepEmbedding(variates, marks, d_model, lookback, dropout)
        self.encoder = nn.ModuleList(EncoderBlock(d_model, d_ff, mixer, dropout) for _ in range(depth))
        self.encoder_norm = nn.LayerNorm(d_model)
        self.decoder_embed = StepEmbedding(variates, marks, d_model, label_len + horizon, dropout)
        self.decoder = nn.ModuleList(
            DecoderBlock(d_model, d_ff, causal, attention, dropout) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(d_model)
        self.project = nn.Linear(d_model, variates)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        self._check(x_BLN, marks_BLT, future_marks_BHT)
        if self.use_norm:
            x_BLN, mean, std = normalise(x_BLN)
        memory = self.embed(x_BLN, marks_BLT)
        for block in self.encoder:
            memory = block(memory)
        memory = self.encoder_norm(memory)
        known = slice(self.lookback - self.label_len, self.lookback)
        h = torch.cat((x_BLN[:, known], x_BLN.new_zeros(len(x_BLN), self.horizon, self.variates)), dim=1)
        h = self.decoder_embed(h, torch.cat((marks_BLT[:, known], future_marks_BHT), dim=1) if self.marks else None)
        for block in self.decoder:
            h = block(h, memory)
        y_BHN = self.project(self.decoder_norm(h[:, -self.horizon :]))
        return denormalise(y_BHN, mean, std) if self.use_norm else y_BHN

    def _check(self, x_BLN: Tensor, marks: Tensor | None, future_marks: Tensor | None) -> None:
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

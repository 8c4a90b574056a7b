"""A Transformer encoder over time steps, to rebuild a window or to name a series' class.

The encoder-only set-ups of the time-series survey (Wen et al. 2022, arXiv 2202.07125, sec. 5) on the embedding of
Informer (arXiv 2012.07436): a token per step, sinusoidal positions, post-norm blocks; any token mixer.

Shapes: B batch, L steps, N variates, D width, C classes, F = d_ff.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import checks
from models.layers.blocks import EncoderBlock, Mixer, bind, share
from models.layers.embeddings import StepEmbedding
from models.layers.instance_norm import denormalise, normalise
from models.mixers.attention import Attention


class StepEncoder(nn.Module):
    """LN(blocks(embedding(x))): (B, L, N) -> (B, L, D), for L up to `length` steps.

    Parameters: 3 N D + depth (mixer + 2 D F + F + D + 4 D) + 2 D.
    """

    def __init__(
        self,
        length: int,
        variates: int,
        d_model: int,
        depth: int,
        heads: int,
        d_ff: int,
        dropout: float,
        mixer: Mixer | None,
    ):
        super().__init__()
        sizes = {"length": length, "variates": variates, "d_model": d_model, "depth": depth}
        for name, value in sizes.items():
            checks.whole(name, value)
        checks.heads(d_model, heads)
        checks.fraction("dropout", dropout)
        checks.factory("mixer", mixer)
        self.length, self.variates = length, variates
        mixer = bind(mixer or partial(Attention, heads=heads, dropout=dropout), length=length)
        self.embed = StepEmbedding(variates, 0, d_model, length, dropout)
        self.blocks = nn.ModuleList(EncoderBlock(d_model, d_ff, mixer, dropout) for _ in range(depth))
        share(block.mixer for block in self.blocks)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BLN: Tensor) -> Tensor:
        if x_BLN.shape[1] > self.length or x_BLN.shape[2] != self.variates:
            raise ValueError(
                f"the series has {x_BLN.shape[1]} steps of {x_BLN.shape[2]} variates, the model was built for"
                f" {self.length} steps of variates={self.variates}"
            )
        h = self.embed(x_BLN)
        for block in self.blocks:
            h = block(h)
        return self.norm(h)


class SeriesEncoder(nn.Module):
    """Rebuilds a window step by step: (B, L, N) -> (B, L, N), a linear map of each step's token.

    Takes a forecaster's arguments, with horizon = lookback; time features are not used.
    use_norm: normalise each window by its own mean and deviation, and undo it on the output.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        variates: int,
        d_model: int = 128,
        depth: int = 3,
        heads: int = 8,
        d_ff: int = 128,
        dropout: float = 0.1,
        use_norm: bool = False,
        mixer: Mixer | None = None,
    ):
        super().__init__()
        if horizon != lookback:
            raise ValueError(
                f"horizon={horizon} differs from lookback={lookback}: this model rebuilds its window; set"
                " data.horizon=${data.lookback}, or choose a forecaster such as model=itransformer"
            )
        checks.switch("use_norm", use_norm)
        self.use_norm = use_norm
        self.encoder = StepEncoder(lookback, variates, d_model, depth, heads, d_ff, dropout, mixer)
        self.project = nn.Linear(d_model, variates)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        if self.use_norm:
            x_BLN, mean, std = normalise(x_BLN)
        y_BLN = self.project(self.encoder(x_BLN))
        return denormalise(y_BLN, mean, std) if self.use_norm else y_BLN


class SeriesClassifier(nn.Module):
    """W flatten(drop(gelu(encoder(x)))): (B, L, N), true lengths (B,) -> logits (B, C).

    Tokens after a series' end are set to zero before the map, whose width is L D.
    """

    def __init__(
        self,
        length: int,
        variates: int,
        classes: int,
        d_model: int = 128,
        depth: int = 3,
        heads: int = 8,
        d_ff: int = 256,
        dropout: float = 0.1,
        mixer: Mixer | None = None,
    ):
        super().__init__()
        checks.whole("classes", classes, least=2)
        self.encoder = StepEncoder(length, variates, d_model, depth, heads, d_ff, dropout, mixer)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(length * d_model, classes)

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        h = self.dropout(F.gelu(self.encoder(x_BLN)))
        if lengths_B is not None:
            h = h * (torch.arange(h.shape[1], device=h.device) < lengths_B[:, None])[..., None]
        return self.head(F.pad(h, (0, 0, 0, self.encoder.length - h.shape[1])).flatten(1))

"""iTransformer: Inverted Transformers Are Effective for Time Series Forecasting (Liu et al. 2023, arXiv 2310.06625).

Notable:
- one token per variate: the whole look-back of a series is embedded at once, so the blocks mix variates, not times
- the feed-forward network and the layer norm act within a variate; the FFN is the temporal model
- no positions: with attention the outputs permute with the variates, and their number may change after training
- time features are tokens too, the last ones; they are dropped before the projection
- with another mixer it is another paper: a Mamba in both directions makes it S-Mamba (arXiv 2403.11144)

Shapes: B batch, L look-back, H horizon, N variates, T time features, D width.
"""

from functools import partial

import torch
from torch import Tensor, nn

from models import checks
from models.layers.blocks import EncoderBlock, Mixer
from models.layers.instance_norm import denormalise, normalise
from models.mixers.attention import Attention


class ITransformer(nn.Module):
    """Forecasts H steps of each variate from its last L.

    mixer: builds what mixes the variates from the width; None is attention with `heads` and `dropout`.
    use_norm: normalise each window by its own mean and deviation, and undo it on the forecast.
    Parameters: L D + D + depth (mixer + 2 D F + F + D + 4 D) + 2 D + D H + H, with F = d_ff.
    """

    any_variates = True  # the weights know L, D and H only: N may change between training and test

    def __init__(
        self,
        lookback: int,
        horizon: int,
        d_model: int = 128,
        depth: int = 2,
        heads: int = 8,
        d_ff: int = 128,
        dropout: float = 0.1,
        use_norm: bool = True,
        mixer: Mixer | None = None,
    ):
        super().__init__()
        for name, value in {"lookback": lookback, "horizon": horizon, "d_model": d_model, "depth": depth}.items():
            checks.whole(name, value)
        checks.heads(d_model, heads)
        checks.fraction("dropout", dropout)
        checks.switch("use_norm", use_norm)
        checks.factory("mixer", mixer)
        self.lookback, self.use_norm = lookback, use_norm
        mixer = mixer or partial(Attention, heads=heads, dropout=dropout)
        self.embed = nn.Linear(lookback, d_model)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(EncoderBlock(d_model, d_ff, mixer, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(d_model)
        self.project = nn.Linear(d_model, horizon)

    def forward(self, x_BLN: Tensor, marks_BLT: Tensor | None = None, future_marks_BHT: Tensor | None = None) -> Tensor:
        """(B, L, N), (B, L, T) -> (B, H, N). The future's time features are not used."""
        if x_BLN.shape[1] != self.lookback:
            raise ValueError(f"the window has {x_BLN.shape[1]} steps, the model was built for lookback={self.lookback}")
        variates = x_BLN.shape[2]
        if self.use_norm:
            x_BLN, mean, std = normalise(x_BLN)
        if marks_BLT is not None:
            x_BLN = torch.cat((x_BLN, marks_BLT), dim=2)
        h = self.dropout(self.embed(x_BLN.transpose(1, 2)))
        for block in self.blocks:
            h = block(h)
        y_BHN = self.project(self.norm(h)[:, :variates]).transpose(1, 2)
        return denormalise(y_BHN, mean, std) if self.use_norm else y_BHN

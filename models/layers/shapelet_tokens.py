"""Tokens that say how a series differs from shapelets (ShapeFormer, Le et al. 2024, arXiv 2405.14608, sec. 4.2).

Shapes: B batch, L steps, N variates, G shapelets, W steps of the longest, P of all of them, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import subsequence_match
from models.shapelets import match_spans

Place = tuple[int, int, int, int, int]
"""Case, variate, start, end (exclusive) and label of a shapelet; case -1 stems from no data."""

SHARPNESS = 20.0  # of the shares that the weights start with
PER_STEP, PER_SHAPELET = ("of_series", "of_shapelet"), ("of_series_bias", "of_shapelet_bias")


class ShapeletTokens(nn.Module):
    """U_n = f(E_n(I_n) - E'_n(S_n)) + start + end + variate: (B, L, N), true lengths (B,) -> (B, G, D).

    S_n: a shapelet's values, parameters. I_n: the subsequence most like it at most `window` steps from its place, by
    the complexity-invariant distance; the search carries no gradient. A series that ends before that is taken at the
    shapelet's place, with the zeros after its end. E_n, E'_n: two linear maps for each shapelet. f: itself
    (`subtract`), square (`euclid`) or absolute value (`manhattan`). start, end, variate: linear maps of one-hot codes
    of the place of the `shapelet`, or of its `bestfit`.
    Parameters: P + 2 P D + 2 G D + (positions + 3) D + G, positions: the widths of the codes, largest value + 1. The
    last G are `weight`, which who reads the tokens may weigh them by: G softmax(20 gain) at the start.
    """

    def __init__(
        self,
        places: list[Place],
        length: int,
        variates: int,
        dim: int,
        window: int,
        trainable: bool = True,
        position: str = "shapelet",
        feature: str = "subtract",
    ):
        super().__init__()
        self.length, self.variates, self.dim, self.window = length, variates, dim, window
        self.trainable, self.position, self.feature = trainable, position, feature
        self._build(places, torch.empty(0).device)

    def adopt(self, places: Tensor, gains: Tensor, values: Tensor) -> None:
        """Starts again from shapelets: places (G, 5), gains (G,), their values end to end (P,)."""
        self._build([tuple(row) for row in places.tolist()], self.values.device)
        with torch.no_grad():
            self.values.copy_(values)
            self.gains.copy_(gains)
            self.weight.copy_(len(gains) * torch.softmax(SHARPNESS * gains, 0))

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        values = self._padded(self.values)
        _, offsets = subsequence_match(x_BLN, values, self.spans, lengths=lengths_B, complexity=True)
        _, variate, start, end, _ = self.places.unbind(1)
        offsets = torch.where(offsets < 0, start, offsets)
        steps = (offsets[..., None] + torch.arange(values.shape[1], device=x_BLN.device)).clamp_(max=self.length - 1)
        cases = torch.arange(len(x_BLN), device=x_BLN.device)[:, None, None]
        best_BGW = x_BLN[cases, steps, variate[:, None]]  # what lies beyond a shapelet's length meets zero weights
        series = torch.einsum("bgw,gwd->bgd", best_BGW, self._padded(self.of_series)) + self.of_series_bias
        shapelets = torch.einsum("gw,gwd->gd", values, self._padded(self.of_shapelet)) + self.of_shapelet_bias
        u_BGD = self._compared(series - shapelets)
        if self.position == "bestfit":
            start, end = offsets, offsets + (end - start)
        return u_BGD + _coded(self.start, start) + _coded(self.end, end) + _coded(self.variate, variate)

    def _compared(self, difference: Tensor) -> Tensor:
        if self.feature == "euclid":
            return difference.square()
        return difference.abs() if self.feature == "manhattan" else difference

    def _padded(self, flat: Tensor) -> Tensor:
        """Rows of all shapelets, end to end, as (G, W, ...), zero after the end of each."""
        G, longest = len(self.places), self.longest
        padded = flat.new_zeros(G * longest, *flat.shape[1:]).index_copy(0, self.slots, flat)
        return padded.view(G, longest, *flat.shape[1:])

    def _build(self, places: list[Place], device: torch.device) -> None:
        """Parameters and buffers for shapelets at these places, the values as noise."""
        self._check(places)
        lengths = [end - start for _, _, start, end, _ in places]
        G, P, self.longest = len(places), sum(lengths), max(lengths)
        whole = torch.tensor(places, device="cpu")
        self.spans = match_spans(whole[:, :4], self.window, self.length)  # not a buffer: read by the host
        self.register_buffer("places", torch.tensor(places, device=device))
        self.register_buffer("gains", torch.zeros(G, device=device))
        slots = [g * self.longest + i for g, steps in enumerate(lengths) for i in range(steps)]
        self.register_buffer("slots", torch.tensor(slots, device=device), persistent=False)
        self.values = nn.Parameter(torch.randn(P, device=device), requires_grad=self.trainable)
        self.weight = nn.Parameter(torch.ones(G, device=device))
        bound = torch.tensor([1 / math.sqrt(steps) for steps in lengths], device=device)[:, None]
        for name in PER_STEP:  # as nn.Linear starts
            each = bound.repeat_interleave(torch.tensor(lengths, device=device), 0, output_size=P)
            setattr(self, name, nn.Parameter((2 * torch.rand(P, self.dim, device=device) - 1) * each))
        for name in PER_SHAPELET:
            setattr(self, name, nn.Parameter((2 * torch.rand(G, self.dim, device=device) - 1) * bound))
        free = self.position == "bestfit"
        _, variate, start, end, _ = whole.amax(0).tolist()
        self.start = nn.Linear(self.length if free else start + 1, self.dim, device=device)
        self.end = nn.Linear(self.length + 1 if free else end + 1, self.dim, device=device)
        self.variate = nn.Linear(variate + 1, self.dim, device=device)

    def _check(self, places: list[Place]) -> None:
        for n, (_, variate, start, end, _) in enumerate(places):
            if not 0 <= start < end <= self.length or not 0 <= variate < self.variates:
                raise ValueError(
                    f"shapelet {n} covers steps {start} to {end} of variate {variate}, the model was built for"
                    f" length={self.length} and variates={self.variates}: it was found in other data"
                )

    def take_shapes(self, state: dict[str, Tensor]) -> None:
        """Rebuilds for the shapelets of a state dict of another model, so that it can be loaded."""
        places = state.get("places")
        if places is not None and not torch.equal(places, self.places):
            self._build([tuple(row) for row in places.tolist()], self.values.device)


def _coded(linear: nn.Linear, index: Tensor) -> Tensor:
    """`linear` of one-hot codes: integers (...) -> (..., D)."""
    return F.embedding(index, linear.weight.mT) + linear.bias

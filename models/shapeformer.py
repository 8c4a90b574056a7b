"""ShapeFormer (Le et al. 2024, arXiv 2405.14608): a series classifier that compares the series with shapelets.

Notable:
- shapelets, found in the training data before training (models/shapelets.py), are parameters: a token is the difference
  of embeddings of a shapelet and of the subsequence most like it near the same place
- a class-specific encoder over these tokens, weighed by what each shapelet tells, of which the first token is kept
- a generic encoder over time steps embedded by convolutions; a linear map of both gives the logits
- attention scales by the full width and normalises where others project

Shapes: B batch, L steps, N variates, C classes, G shapelets, W steps of the longest, P of all, D width (d_spe, d_gen).
"""

import logging
from dataclasses import astuple
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import attention
from models import checks
from models.layers.ffn import FeedForward
from models.layers.shapelet_tokens import Place, ShapeletTokens
from models.shapelets import SHORTEST, Shapelet, discover

logger = logging.getLogger(__name__)

CHOICES = {
    "module": ("both", "specific", "generic"),
    "shapelets": ("discovered", "random", "none"),
    "position": ("shapelet", "bestfit"),
    "feature": ("subtract", "euclid", "manhattan"),
    "token": ("first", "mean", "learned"),
    "ig_splits": ("all", "quintiles"),
}


class ShapeFormer(nn.Module):
    """(B, L, N), true lengths (B,) -> logits (B, C).

    window: steps a match may lie from the shapelet's place, at most L / 2. per_class: shapelets of a class. pips:
    important points per step, see `models.shapelets.candidates`. candidate_cases: series of a class that candidates
    come from (None: all). ig_splits: `all` or `quintiles`. seed: of what discovery draws.
    d_spe, d_gen: widths of the class-specific and the generic encoder, both multiples of heads.
    module: `both`, `specific` or `generic`. shapelets: `discovered`, `random` spans of the training series, or `none`:
    noise at regular places, to be learned. position: embeds the place of the `shapelet` or of its `bestfit`. feature:
    `subtract` the embeddings, or its square (`euclid`), or absolute value (`manhattan`). token: what the specific
    encoder gives: the `first`, the `mean`, or a `learned` one.
    Parameters: specific P (1 + 2 D) + 2 G D + D (positions + 3) + G + block(D) with positions the widths of the three
    one-hot codes and block(D) = 3 D^2 + 2 D F + F + D + 6 D; generic D (8 + 1 + 2) + D (N D + 1 + 2) + L D + block(D).
    """

    def __init__(
        self,
        length: int,
        variates: int,
        classes: int,
        window: int = 10,
        per_class: int = 10,
        pips: float = 0.2,
        candidate_cases: int | None = None,
        ig_splits: str = "all",
        seed: int = 0,
        d_spe: int = 128,
        d_gen: int = 32,
        heads: int = 16,
        d_ff: int = 256,
        dropout: float = 0.4,
        module: str = "both",
        shapelets: str = "discovered",
        shapelets_trainable: bool = True,
        position: str = "shapelet",
        feature: str = "subtract",
        token: str = "first",
    ):
        super().__init__()
        sizes = {"length": length, "variates": variates, "per_class": per_class, "d_spe": d_spe, "d_gen": d_gen}
        for name, value in sizes.items():
            checks.whole(name, value)
        if candidate_cases is not None:
            checks.whole("candidate_cases", candidate_cases)
        checks.whole("classes", classes, least=2)
        for name, value in {"window": window, "seed": seed}.items():
            checks.whole(name, value, least=0)
        checks.fraction("pips", pips)
        checks.fraction("dropout", dropout)
        checks.switch("shapelets_trainable", shapelets_trainable)
        chosen = {"module": module, "shapelets": shapelets, "position": position, "feature": feature, "token": token}
        for name, value in {**chosen, "ig_splits": ig_splits}.items():
            checks.choice(name, value, CHOICES[name])
        _check_heads(heads, d_spe=d_spe, d_gen=d_gen)
        if length <= SHORTEST:
            raise ValueError(f"length={length} is too short for shapelets: series need more than {SHORTEST} steps")
        if window > length // 2:
            logger.warning(f"window={window} is more than half of the {length} steps: taking {length // 2}")
            window = length // 2
        self.length, self.variates, self.module = length, variates, module
        self.settings = {"source": shapelets, "window": window, "per_class": per_class, "pips": pips}
        self.settings |= {"ig_splits": ig_splits, "candidate_cases": candidate_cases, "seed": seed}
        width = 0
        if module != "generic":
            width += d_spe
            places = regular_places(length, variates, classes, per_class)
            options = {"trainable": shapelets_trainable, "position": position, "feature": feature}
            tokens = ShapeletTokens(places, length, variates, d_spe, window, **options)
            self.specific = ClassSpecific(tokens, Block(d_spe, heads, d_ff, dropout), token)
        if module != "specific":
            width += d_gen
            self.generic = Generic(length, variates, Block(d_gen, heads, d_ff, dropout), dropout)
        self.head = nn.Linear(width, classes)

    @property
    def discovery(self) -> dict[str, Any]:
        """The settings that what `discover` finds depends on."""
        if self.module == "generic" or self.settings["source"] == "none":
            return {"source": "none"}
        drawn = self.settings["source"] == "random" or self.settings["candidate_cases"] is not None
        return self.settings if drawn else {k: v for k, v in self.settings.items() if k != "seed"}

    def discover(self, x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """Shapelets of a training set: places (G, 5), gains (G,), values end to end (P,). The model stays as it is."""
        if self.discovery == {"source": "none"}:
            return {}
        found = discover(x_MLN, lengths_M, labels_M, **self.settings)
        places = torch.tensor([astuple(s)[:5] for s in found])
        values = torch.cat([x_MLN[s.case, s.start : s.end, s.variate] for s in found])
        return {"places": places, "gains": torch.tensor([s.gain for s in found]), "values": values}

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Starts the class-specific module from what `discover` found: parameters change shape."""
        if found:
            self.specific.tokens.adopt(found["places"], found["gains"], found["values"])

    def shapelets(self) -> list[Shapelet]:
        """The shapelets, as indices of the training series that discovery saw; empty where there are none of these."""
        if self.module == "generic":
            return []
        tokens = self.specific.tokens
        rows = zip(tokens.places.tolist(), tokens.gains.tolist(), strict=True)
        return [Shapelet(*row, gain) for row, gain in rows if row[0] >= 0]

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        if x_BLN.shape[1:] != (self.length, self.variates):
            raise ValueError(
                f"the series have {x_BLN.shape[1]} steps of {x_BLN.shape[2]} variates, the model was built for"
                f" length={self.length} and variates={self.variates}"
            )
        parts = []
        if self.module != "generic":
            parts.append(self.specific(x_BLN, lengths_B))
        if self.module != "specific":
            parts.append(self.generic(x_BLN, lengths_B))
        return self.head(torch.cat(parts, -1))


def _check_heads(heads: int, **widths: int) -> None:
    checks.whole("heads", heads)
    if wrong := [f"{name}={width}" for name, width in widths.items() if width % heads]:
        raise ValueError(
            f"heads={heads} does not divide {' and '.join(wrong)}: d_spe and d_gen must both be multiples of heads"
        )


def regular_places(length: int, variates: int, classes: int, per_class: int) -> list[Place]:
    """Places of shapelets that stem from no data: a fifth of the steps long, spread over time and variates."""
    G, steps = classes * per_class, max(SHORTEST, length // 5)
    starts = [n * (length - steps) // max(1, G - 1) for n in range(G)]
    return [(-1, n % variates, start, start + steps, n // per_class) for n, start in enumerate(starts)]


class ClassSpecific(nn.Module):
    """One block over the shapelets' tokens, of which one is kept: (B, L, N), true lengths (B,) -> (B, D).

    token: the `first`, the `mean`, or a `learned` one that is put before them, with the weight 1.
    """

    def __init__(self, tokens: ShapeletTokens, block: "Block", token: str):
        super().__init__()
        self.tokens, self.block, self.token = tokens, block, token
        self.learned = nn.Parameter(0.02 * torch.randn(tokens.dim)) if token == "learned" else None

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        u, weight = self.tokens(x_BLN, lengths_B), self.tokens.weight
        if self.learned is not None:
            u = torch.cat((self.learned.expand(len(u), 1, -1), u), 1)
            weight = torch.cat((weight.new_ones(1), weight))
        kept = len(weight) if self.token == "mean" else 1
        return self.block(u[:, :kept], u[:, :kept], u, weight=weight[:kept]).mean(1)


class Generic(nn.Module):
    """Two convolutions, over time and over variates, and one block over the steps: (B, L, N) -> (B, D).

    h = GELU(BN(conv_Nx1(GELU(BN(conv_1x8(x)))))),    z = block(h + positions),    mean of z over a series' true steps.
    """

    def __init__(self, length: int, variates: int, block: "Block", dropout: float):
        super().__init__()
        dim = block.dim
        self.time = nn.Sequential(nn.Conv2d(1, dim, (1, 8)), nn.BatchNorm2d(dim), nn.GELU())
        self.mix = nn.Sequential(nn.Conv2d(dim, dim, (variates, 1)), nn.BatchNorm2d(dim), nn.GELU())
        self.positions = nn.Parameter(torch.empty(length, dim).uniform_(-0.02, 0.02))
        self.dropout, self.block = nn.Dropout(dropout), block

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        x_B1NL = F.pad(x_BLN.mT[:, None], (3, 4))  # as many steps as before
        h = self.mix(self.time(x_B1NL)).squeeze(2).mT
        placed = self.dropout(h + self.positions)
        z = self.block(h, placed, placed, key_lengths=lengths_B)
        if lengths_B is None:
            return z.mean(1)
        inside = torch.arange(z.shape[1], device=z.device) < lengths_B[:, None]
        return (z * inside[..., None]).sum(1) / lengths_B.clamp(min=1)[:, None]


class Block(nn.Module):
    """z = LN((x + A(query, context)) w); LN(z + FFN(z)) w.

    x, query (B, T, D), context (B, S, D) -> (B, T, D). weight: w (T,) of the tokens, 1 where None. The feed-forward
    network has ReLU.
    """

    def __init__(self, dim: int, heads: int, d_ff: int, dropout: float):
        super().__init__()
        self.dim = dim
        self.attention = NormAttention(dim, heads)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, d_ff, dropout, activation=F.relu)

    def forward(
        self,
        x_BTD: Tensor,
        query_BTD: Tensor,
        context_BSD: Tensor,
        weight: Tensor | None = None,
        key_lengths: Tensor | None = None,
    ) -> Tensor:
        w = 1.0 if weight is None else weight[:, None]
        z = self.norm1((x_BTD + self.attention(query_BTD, context_BSD, key_lengths)) * w)
        return self.norm2(z + self.ffn(z)) * w


class NormAttention(nn.Module):
    """LN(concat_heads(softmax(q k^T / sqrt(D)) v)): scaled by the full width, maps without bias, none at the end."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, dim**-0.5
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, context_BSD: Tensor, key_lengths: Tensor | None = None) -> Tensor:
        q, k, v = (self._split(x) for x in (self.q(x_BTD), self.k(context_BSD), self.v(context_BSD)))
        out = attention(q, k, v, key_lengths=key_lengths, scale=self.scale)
        return self.norm(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

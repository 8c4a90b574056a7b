"""VSFormer: Value and Shape-Aware Transformer with Prior-Enhanced Self-Attention (Xi et al. 2024, arXiv 2412.16515).

Notable:
- two kinds of tokens: a series' best matches to motifs of every class (shape), statistics of its intervals (value)
- what training labels say of a token, the class prior, stands in its encoding and in the attention scores
- one layer with batch norm, and all tokens flattened before the linear classifier, so the order of tokens is fixed
- the paper's text could not be had beyond its summary, and no code: formulas are this project's where it gives none
- motifs and priors are learnt from the training part before training: `discover`, then `adopt`

Shapes: B batch, L steps, N variates, C classes, S shape tokens, G tokens in all, W longest prototype, D width, h heads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import checks, value_shape
from models.layers.ffn import FeedForward
from models.mixers.attention import Attention
from models.mixers.prior_attention import OverlapAttention, PriorAttention
from models.shapelets import Shapelet

MOST_TOKENS = 4096


class Tokens(NamedTuple):
    """A batch before it is embedded, without gradient."""

    matches: Tensor  # (B, S, W)
    statistics: Tensor  # (B, G - S, 3)
    spans: Tensor  # (B, G, 2): first step and the one after the last, over L


class Attribution(NamedTuple):
    """What speaks for the class that is predicted, token by token."""

    label: Tensor  # (B,): the class
    score: Tensor  # (B, G): gradient of its logit x token, summed over the width
    spans: Tensor  # (B, G, 2): first step and the one after the last
    variate: Tensor  # (G,)
    shape: Tensor  # (G,): whether it is a match, or the statistics of an interval
    prior: Tensor  # (G, C)


class Layer(nn.Module):
    """x = BN(x + mixer(x)); x = BN(x + ffn(x)): (B, G, D) -> (B, G, D). BN is over all tokens of the batch."""

    def __init__(self, dim: int, d_ff: int, mixer: nn.Module, dropout: float):
        super().__init__()
        self.mixer = mixer
        self.norm1 = nn.BatchNorm1d(dim)
        self.ffn = FeedForward(dim, d_ff, dropout)
        self.norm2 = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        x = self.norm1((x + self.mixer(x, *given)).transpose(1, 2)).transpose(1, 2)
        return self.norm2((x + self.ffn(x)).transpose(1, 2)).transpose(1, 2)


class VSFormer(nn.Module):
    """Classifies (B, L, N) by tokens of value and shape: logits (B, C).

    length: L, the steps that the longest case has. tokens: both | shape | value. prior: where the class prior acts:
    both | encoding (of a token's place) | attention | none. pesa: how it acts in attention, scalar (PriorAttention) |
    svp (OverlapAttention: by time shared, not by prior). motifs: prototypes per class and variate, of `lengths` (shares
    of L, 4 steps at least). levels: into how many intervals each series is cut.
    Parameters: W D + D (shape) + 3 D + D (value) + (3 + C) D + D + depth (4 (D^2 + D) + 2 h + 2 D F + F + D + 4 D)
    + G D C + C, with F = d_ff, S = motifs N C, G = S + N sum(levels); without a prior in the encoding 3 for 3 + C, in
    attention 0 for 2 h (svp: 1).
    """

    def __init__(
        self,
        length: int,
        variates: int,
        classes: int,
        d_model: int = 64,
        depth: int = 1,
        heads: int = 8,
        d_ff: int = 128,
        dropout: float = 0.2,
        tokens: str = "both",
        prior: str = "both",
        pesa: str = "scalar",
        motifs: int = 1,
        lengths: Sequence[float] = (0.15, 0.3),
        levels: Sequence[int] = (1, 2, 4),
    ):
        super().__init__()
        checks.whole("length", length, value_shape.SHORTEST)
        checks.whole("classes", classes, 2)
        wholes = {"variates": variates, "depth": depth, "d_ff": d_ff, "motifs": motifs}
        for name, value in wholes.items():
            checks.whole(name, value)
        checks.heads(d_model, heads)
        checks.fraction("dropout", dropout)
        checks.choice("tokens", tokens, ("both", "shape", "value"))
        checks.choice("prior", prior, ("both", "encoding", "attention", "none"))
        checks.choice("pesa", pesa, ("scalar", "svp"))
        self.length, self.variates, self.classes, self.motifs, self.tokens = length, variates, classes, motifs, tokens
        self.sizes, self.levels = _sizes(lengths, length), _levels(levels, length)
        shapes = motifs * variates * classes if tokens != "value" else 0
        values = variates * sum(self.levels) if tokens != "shape" else 0
        if shapes + values > MOST_TOKENS:
            raise ValueError(
                f"motifs={motifs} and levels={list(self.levels)} make {shapes + values} tokens of {variates} variates"
                f" and {classes} classes: at most {MOST_TOKENS}, choose fewer motifs or levels"
            )
        self._make_buffers(shapes, values)
        self.shape = nn.Linear(self.sizes[-1], d_model) if shapes else None
        self.value = nn.Linear(3, d_model) if values else None
        self.encodes = prior in ("both", "encoding")
        self.encoding = nn.Linear(3 + classes * self.encodes, d_model)
        self.dropout = nn.Dropout(dropout)
        rule = {"scalar": PriorAttention, "svp": OverlapAttention}[pesa] if prior in ("both", "attention") else None
        self.layers = nn.ModuleList(
            Layer(
                d_model,
                d_ff,
                rule(d_model, heads, dropout) if rule else Attention(d_model, heads, 0.0, dropout),
                dropout,
            )
            for _ in range(depth)
        )
        self.head = nn.Linear((shapes + values) * d_model, classes)

    def _make_buffers(self, shapes: int, values: int) -> None:
        """Prototypes in the order (class, variate, rank), as nominal until `adopt`, and the variate of every token."""
        self.register_buffer("prototypes", torch.zeros(shapes, self.sizes[-1]))
        self.register_buffer("prototype_lengths", torch.full((shapes,), self.sizes[-1]))
        self.register_buffer("origins", torch.zeros(shapes, 2, dtype=torch.int64))
        self.register_buffer("gains", torch.zeros(shapes))
        self.register_buffer("prior", torch.zeros(shapes + values, self.classes))
        each = torch.arange(self.variates)
        of_shapes = each.repeat_interleave(self.motifs).repeat(self.classes)[:shapes]
        of_values = each.repeat_interleave(sum(self.levels))[:values]
        self.register_buffer("variate", torch.cat((of_shapes, of_values)), persistent=False)

    @property
    def discovery(self) -> dict[str, Any]:
        """What `discover` depends on besides the data."""
        return {
            "by": "value_shape",
            "tokens": self.tokens,
            "motifs": self.motifs,
            "sizes": list(self.sizes),
            "levels": list(self.levels),
            "classes": self.classes,
        }

    @torch.no_grad()
    def discover(self, x_MLN: Tensor, lengths_M: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """Motifs and class priors of the training cases (M, L, N), zero after their lengths (M,), labels 0 to C - 1.

        On the CPU. prototypes (S, W) with zeros behind prototype_lengths (S,); origins (S, 2): training case and first
        step; gains (S,) in bits; prior (G, C), shape and value tokens each over their own largest gain.

        Raises:
            ValueError: a label that is not one of the classes, a value that is not finite, a case of under 4 steps.
        """
        value_shape.check(x_MLN, lengths_M, labels_M, self.classes)
        found, priors = {}, []
        if self.shape is not None:
            motifs = value_shape.find_motifs(x_MLN, lengths_M, labels_M, self.classes, self.sizes, self.motifs)
            values = torch.zeros(len(motifs), self.sizes[-1])
            for row, motif in zip(values, motifs, strict=True):
                row[: motif.length] = x_MLN[motif.case, motif.start : motif.start + motif.length, motif.variate]
            lengths = torch.tensor([motif.length for motif in motifs])
            _, _, distances = value_shape.best_matches(x_MLN, lengths_M, values, self._search(lengths))
            of = torch.tensor([motif.label for motif in motifs])
            prior = value_shape.shape_prior(distances, labels_M, of, self.classes)
            priors.append(value_shape.scaled_prior(prior, "shape"))
            found = {"prototypes": values, "prototype_lengths": lengths, "gains": prior.amax(1)}
            found["origins"] = torch.tensor([(motif.case, motif.start) for motif in motifs])
        if self.value is not None:
            statistics = value_shape.interval_statistics(x_MLN, value_shape.intervals(lengths_M, self.levels))
            prior = value_shape.value_prior(statistics, labels_M, self.classes)
            priors.append(value_shape.scaled_prior(prior, "value"))
        return found | {"prior": torch.cat(priors)}

    def adopt(self, found: dict[str, Tensor]) -> None:
        """Takes what `discover` found; a shape that is not this model's is a ValueError."""
        for name, value in found.items():
            own = getattr(self, name)
            if value.shape != own.shape:
                raise ValueError(
                    f"{name} is {tuple(value.shape)}, this model takes {tuple(own.shape)}: it was discovered with other"
                    f" settings than {self.discovery}"
                )
            own.copy_(value)

    def shapelets(self) -> list[Shapelet]:
        """Where the prototypes come from, in the order of the tokens; nominal before `adopt`."""
        origins, lengths, gains = self.origins.tolist(), self.prototype_lengths.tolist(), self.gains.tolist()
        per_class = self.motifs * self.variates
        return [
            Shapelet(case, int(self.variate[s]), start, start + lengths[s], s // per_class, gains[s])
            for s, (case, start) in enumerate(origins)
        ]

    def forward(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        tokens = self.features(x_BLN, lengths_B)
        return self.classify(self.embed(tokens), tokens.spans)

    @torch.no_grad()
    def features(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Best matches and interval statistics: they depend on the case and on what was adopted, not on training."""
        B, L, N = x_BLN.shape
        if self.length != L or self.variates != N:
            raise ValueError(f"x has {L} steps and {N} variates, this model takes {self.length} and {self.variates}")
        matches, statistics, spans = x_BLN.new_zeros(B, 0, self.sizes[-1]), x_BLN.new_zeros(B, 0, 3), []
        if self.shape is not None:
            search = self._search(self.prototype_lengths)
            matches, at, _ = value_shape.best_matches(x_BLN, lengths_B, self.prototypes.to(x_BLN.dtype), search)
            spans.append(at)
        if self.value is not None:
            steps = torch.full((1,), L, device=x_BLN.device) if lengths_B is None else lengths_B
            cut = value_shape.intervals(steps, self.levels)
            statistics = value_shape.interval_statistics(x_BLN, cut)
            spans.append(cut.repeat(1, N, 1).expand(B, -1, -1))
        return Tokens(matches, statistics, torch.cat(spans, 1).to(x_BLN.dtype) / self.length)

    def embed(self, tokens: Tokens) -> Tensor:
        """Drop(token + encoding(start, end, variate, prior)): (B, G, D). The weights of a step that a shorter prototype
        lacks see zeros: a short match uses the first columns of the same linear map."""
        parts = []
        if self.shape is not None:
            parts.append(self.shape(tokens.matches))
        if self.value is not None:
            parts.append(self.value(tokens.statistics))
        place = self.variate.to(tokens.spans.dtype)[:, None] / max(1, self.variates - 1)
        known = [place, self.prior.to(tokens.spans.dtype)] if self.encodes else [place]
        known = torch.cat(known, 1).expand(len(tokens.spans), -1, -1)
        return self.dropout(torch.cat(parts, 1) + self.encoding(torch.cat((tokens.spans, known), -1)))

    def classify(self, h_BGD: Tensor, spans_BG: Tensor) -> Tensor:
        """The encoder and the head: (B, C)."""
        for layer in self.layers:
            h_BGD = layer(h_BGD, *self._given(layer.mixer, spans_BG))
        return self.head(self.dropout(F.gelu(h_BGD)).flatten(1))

    def attributions(self, x_BLN: Tensor, lengths_B: Tensor | None = None) -> Attribution:
        """Gradient x input of every token as it enters the encoder, in evaluation mode."""
        training = self.training
        self.eval()
        tokens = self.features(x_BLN, lengths_B)
        with torch.no_grad():
            embedded = self.embed(tokens)
        with torch.inference_mode(False), torch.enable_grad():
            h_BGD = embedded.clone().requires_grad_()
            logits = self.classify(h_BGD, tokens.spans.clone())
            (gradient,) = torch.autograd.grad(logits.amax(1).sum(), h_BGD)
        self.train(training)
        score = (gradient * h_BGD).sum(-1).detach()
        spans = (tokens.spans * self.length).round().long()
        shape = torch.arange(score.shape[1], device=score.device) < len(self.prototypes)
        return Attribution(logits.argmax(1), score, spans, self.variate, shape, self.prior)

    def _given(self, mixer: nn.Module, spans_BG: Tensor) -> tuple[Tensor, ...]:
        """What the attention rule takes besides the tokens."""
        if isinstance(mixer, PriorAttention):
            return F.normalize(self.prior, dim=1), self.prior.amax(1)
        if isinstance(mixer, OverlapAttention):
            start, stop = spans_BG.unbind(-1)
            shared = torch.minimum(stop[:, :, None], stop[:, None]) - torch.maximum(start[:, :, None], start[:, None])
            return (shared.clamp(min=0) * (self.variate[:, None] != self.variate),)
        return ()

    def _search(self, lengths_S: Tensor) -> Tensor:
        """The rows of kernels.subsequence_match: each prototype in its variate, at any offset. On the meta device,
        where lengths have no values, the nominal ones."""
        lengths = [self.sizes[-1]] * len(lengths_S) if lengths_S.is_meta else lengths_S.tolist()
        variates = [v for _ in range(self.classes) for v in range(self.variates) for _ in range(self.motifs)]
        rows = [(length, variate, 0, self.length) for length, variate in zip(lengths, variates, strict=True)]
        return torch.tensor(rows, dtype=torch.int64, device="cpu")


def _sizes(lengths: Sequence[float], steps: int) -> tuple[int, ...]:
    """Shares of the steps as prototype lengths, rising; on short series several become one."""
    shares = list(lengths)
    if not shares or not all(isinstance(share, int | float) and 0 < share <= 1 for share in shares):
        raise ValueError(f"lengths={shares} must be shares of the series in (0, 1], e.g. [0.15, 0.3]")
    return tuple(sorted({max(value_shape.SHORTEST, round(share * steps)) for share in shares}))


def _levels(levels: Sequence[int], steps: int) -> tuple[int, ...]:
    levels = list(levels)
    if not levels or not all(isinstance(level, int) and 1 <= level <= steps for level in levels):
        raise ValueError(f"levels={levels} must be numbers of intervals from 1 to the {steps} steps, e.g. [1, 2, 4]")
    return tuple(levels)

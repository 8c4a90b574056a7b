"""Figures of models that say which tokens speak for a class (`attributions`), and what labels say of each token.

Shapes: B cases, G tokens, L steps, N variates, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from models.vsformer import Attribution

BEST = 3
"""How many tokens of a case the figure shows."""


def draw(
    told: "Attribution", values: Sequence[Tensor], classes: Sequence[str], variates: Sequence[str]
) -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) pairs: the tokens that speak loudest in each of B cases, of `values` (length, N); the prior."""
    yield "tokens", draw_tokens(told, values, classes, variates)
    yield "prior", draw_prior(told, classes)


def draw_tokens(
    told: "Attribution", values: Sequence[Tensor], classes: Sequence[str], variates: Sequence[str]
) -> "Figure":
    """A row per case; what speaks for the class that is predicted in red, what speaks against it in blue."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(values), BEST, figsize=(3.6 * BEST, 1.9 * len(values)), squeeze=False, layout="constrained"
    )
    for case, (row, own) in enumerate(zip(axes, values, strict=True)):
        row[0].set_ylabel(f"taken for {classes[told.label[case]]}", fontsize=8)
        for panel, token in zip(row, told.score[case].abs().argsort(descending=True).tolist(), strict=False):
            variate = int(told.variate[token])
            draw_token(panel, told, case, token, own[:, variate])
            kind = "shape" if told.shape[token] else "value"
            panel.set_title(f"{kind} of {variates[variate]}: {float(told.score[case, token]):+.2f}", fontsize=8)
    return figure


def draw_token(panel: "Axes", told: "Attribution", case: int, token: int, values: Tensor) -> None:
    """One variate's steps: a match drawn over them, or an interval shaded."""
    start, stop = told.spans[case, token].tolist()
    colour = "tab:red" if told.score[case, token] > 0 else "tab:blue"
    panel.plot(values.numpy(), color="0.6", linewidth=0.9)
    if told.shape[token]:
        panel.plot(range(start, stop), values[start:stop].numpy(), color=colour, linewidth=2)
    else:
        panel.axvspan(start - 0.5, stop - 0.5, color=colour, alpha=0.15, linewidth=0)
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.3)


def draw_prior(told: "Attribution", classes: Sequence[str]) -> "Figure":
    """A heat map: classes down, tokens across, those of shape first, what training labels say of each."""
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(9, 1.6 + 0.2 * len(classes)), layout="constrained")
    image = panel.imshow(told.prior.T.numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    shapes = int(told.shape.sum())
    if 0 < shapes < len(told.prior):
        panel.axvline(shapes - 0.5, color="white", linewidth=1)
    if len(classes) <= 40:
        panel.set_yticks(range(len(classes)), classes, fontsize=7)
    panel.set(xlabel=f"token ({shapes} of shape, then {len(told.prior) - shapes} of value)", ylabel="class")
    figure.colorbar(image, ax=panel, label="share of the largest gain")
    return figure

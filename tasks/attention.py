"""Attention weights of any model that has them, and their figure."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AttentionWeights:
    """In its `with` block, gathers the weights (B, heads, T, S) of every module that has them, in order of use."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.maps: list[Tensor] = []

    def __enter__(self) -> "AttentionWeights":
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self.maps.append(module.weights(*args, **kwargs).detach())

        modules = [m for m in self.model.modules() if callable(getattr(m, "weights", None))]
        self.handles = [m.register_forward_pre_hook(hook, with_kwargs=True) for m in modules]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


def draw(maps: list[Tensor], columns: list[str]) -> "Figure":
    """One heat map per attention layer, averaged over cases and heads: which token (row) looks at which (column).

    columns: the variates' names, written at the axes where the tokens are variates.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(maps), figsize=(5.2 * len(maps), 4.6), squeeze=False, layout="constrained")
    for index, (panel, weights) in enumerate(zip(axes[0], maps, strict=True)):
        mean = weights.float().mean((0, 1)).cpu()
        image = panel.imshow(mean, cmap="viridis", vmin=0)
        panel.set_title(f"attention, layer {index + 1}", fontsize=9)
        figure.colorbar(image, ax=panel, shrink=0.8)
        rows, width = mean.shape
        over_variates = rows == width and len(columns) <= width <= len(columns) + 5
        if over_variates and width <= 40:
            names = columns + [f"time {i + 1}" for i in range(width - len(columns))]
            panel.set_xticks(range(width), names, rotation=90, fontsize=6)
            panel.set_yticks(range(rows), names, fontsize=6)
        panel.set(xlabel="is looked at", ylabel="looks")
    return figure

"""Figures and the table of a classification run: test cases with their predictions, shapelets, attention."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.shapelets import Shapelet
from tasks import attention
from tasks.ts_classification import tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tasks.ts_classification.data import SeriesClasses
    from tasks.ts_classification.task import SeriesClassification

CLASSES, PER_CLASS, VARIATES = 6, 3, 3
"""How many classes, cases of each and variates of a case the figure of test cases shows."""

SHAPELETS = 12
LOOKED_AT = 30  # cases of a class among which right and wrong predictions are picked
ROWS = 100


def draw(task: "SeriesClassification") -> Iterator[tuple[str, "Figure"]]:
    """(name, figure) pairs of the task's present weights on the test split."""
    data: SeriesClasses = task.trainer.datamodule
    looked_at = torch.cat([(data.test.y == label).nonzero()[:LOOKED_AT, 0] for label in range(data.classes)[:CLASSES]])
    logits, maps = look(task, looked_at)
    yield "cases", draw_cases(data, looked_at, logits.argmax(1))
    if maps:
        yield "attention", attention.draw(maps, data.variate_names)
    if hasattr(task.model, "shapelets"):
        yield "shapelets", draw_shapelets(task.model.shapelets(), data)
    if hasattr(task.model, "attributions"):
        firsts = looked_at[data.test.y[looked_at].diff(prepend=torch.tensor([-1])) != 0]
        batch = {key: value.to(task.device) for key, value in data.test[firsts].items()}
        told = task.model.attributions(batch["x"], batch["lengths"])
        values = [original(data, data.test.x[case], int(data.test.lengths[case])) for case in firsts]
        yield from tokens.draw(type(told)(*(part.cpu() for part in told)), values, data.class_names, data.variate_names)


def look(task: "SeriesClassification", index: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, C) of test cases, and the attention weights behind those of the first few."""
    batch = {key: value.to(task.device) for key, value in task.trainer.datamodule.test[index].items()}
    few = {key: value[:PER_CLASS] for key, value in batch.items()}
    weights = attention.AttentionWeights(task.model)
    with torch.inference_mode():
        logits = task.eval()(batch).cpu()
        with weights:
            task(few)
    return logits, weights.maps


def original(data: "SeriesClasses", x_LN: Tensor, length: int) -> Tensor:
    """One case's true steps (length, N) in original units."""
    return x_LN[:length].double() * data.std + data.mean


def draw_cases(data: "SeriesClasses", index: Tensor, predicted: Tensor) -> "Figure":
    """A row per class, up to three test cases of it, wrongly classified ones first; some variates, original units."""
    import matplotlib.pyplot as plt

    shown = min(CLASSES, data.classes)
    figure, axes = plt.subplots(
        shown, PER_CLASS, figsize=(3.6 * PER_CLASS, 1.9 * shown), squeeze=False, layout="constrained"
    )
    truth = data.test.y[index]
    for label in range(shown):
        own = (truth == label).nonzero()[:, 0]
        own = own[(predicted[own] == label).long().argsort(stable=True)]
        wrong = int((predicted[own] != label).sum())
        picked = own[: min(wrong, PER_CLASS - 1)].tolist()
        picked += own[wrong:][: PER_CLASS - len(picked)].tolist()
        for panel, position in zip(axes[label], picked, strict=False):
            draw_case(panel, data, int(index[position]), int(predicted[position]))
        for panel in axes[label][len(picked) :]:
            panel.set_axis_off()
        axes[label][0].set_ylabel(data.class_names[label], fontsize=9)
    axes[0][0].legend(fontsize=6)
    return figure


def draw_case(panel: "Axes", data: "SeriesClasses", case: int, predicted: int) -> None:
    """One test case, titled with what it was taken for."""
    values = original(data, data.test.x[case], int(data.test.lengths[case])).numpy()
    for variate in range(min(VARIATES, values.shape[1])):
        panel.plot(values[:, variate], linewidth=0.9, label=data.variate_names[variate])
    right = predicted == int(data.test.y[case])
    verdict = "right" if right else f"taken for {data.class_names[predicted]}"
    panel.set_title(f"{data.test.names[case]}: {verdict}", fontsize=8, color="tab:green" if right else "tab:red")
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.3)


def draw_shapelets(shapelets: Sequence[Shapelet], data: "SeriesClasses") -> "Figure":
    """The shapelets that tell most, classes in turn, each drawn over the training series it comes from."""
    import matplotlib.pyplot as plt

    chosen = best_in_turn(shapelets)
    columns = min(4, len(chosen)) or 1
    rows = -(-len(chosen) // columns) or 1
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 2.1 * rows), squeeze=False, layout="constrained")
    for panel, one in zip(axes.flat, chosen, strict=False):
        values = original(data, data.train.x[one.case], int(data.train.lengths[one.case])).numpy()[:, one.variate]
        panel.plot(values, color="0.7", linewidth=0.9)
        panel.plot(range(one.start, one.end), values[one.start : one.end], color=f"C{one.label % 10}", linewidth=2)
        panel.set_title(
            f"{data.class_names[one.label]}: {data.variate_names[one.variate]} of {data.train.names[one.case]},"
            f" {one.gain:.2f} bits",
            fontsize=7,
        )
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(chosen) :]:
        panel.set_axis_off()
    return figure


def best_in_turn(shapelets: Sequence[Shapelet], most: int = SHAPELETS) -> list[Shapelet]:
    """At most `most` shapelets, by falling gain within a class: every class's best, every class's second, ..."""
    ranks: dict[int, int] = {}
    ranked = []
    for one in sorted(shapelets, key=lambda one: -one.gain):
        ranks[one.label] = ranks.get(one.label, -1) + 1
        ranked.append((ranks[one.label], one.label, one))
    return [one for _, _, one in sorted(ranked, key=lambda entry: entry[:2])[:most]]


def table(task: "SeriesClassification") -> tuple[list[str], list[list[Any]]]:
    """The first test cases: name, truth, prediction, probability of the prediction."""
    data: SeriesClasses = task.trainer.datamodule
    logits, _ = look(task, torch.arange(min(ROWS, len(data.test))))
    sure, predicted = logits.float().softmax(1).max(1)
    rows = zip(data.test.names, data.test.y.tolist(), predicted.tolist(), sure.tolist(), strict=False)
    names = data.class_names
    return (
        ["case", "truth", "predicted", "probability"],
        [[name, names[y], names[p], round(q, 4)] for name, y, p, q in rows][: len(logits)],
    )

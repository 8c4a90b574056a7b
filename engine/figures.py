"""The figures of a run, as PNG files."""

from pathlib import Path

import lightning as L

from engine.callbacks import History


def save(folder: Path, task: L.LightningModule, history: History) -> list[str]:
    """Draws the loss curves and the task's own figures; returns the files' names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(exist_ok=True)
    names = []
    drawn = list(task.figures())
    if history.rows:
        drawn.append(("loss", loss_curves(history.rows, task.monitor)))
    for name, figure in drawn:
        figure.savefig(folder / f"{name}.png", dpi=120)
        plt.close(figure)
        names.append(f"{folder.name}/{name}.png")
    return names


def loss_curves(rows: list[dict[str, float]], monitor: str):
    """Training loss and the monitored metric over the steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for key, style in (("train/loss", "-"), (monitor, "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=key, markersize=4)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure

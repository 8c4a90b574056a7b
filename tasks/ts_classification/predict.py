"""Class names and probabilities for the cases of a user's file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from tasks.ts_classification import csv_file, readers
from tasks.ts_classification.cases import Cases
from tasks.ts_classification.data import to_scale

if TYPE_CHECKING:
    from tasks.ts_classification.task import SeriesClassification

BATCH = 256


def predict_file(task: "SeriesClassification", data: dict[str, Any], source: Path, target: Path) -> str:
    """Writes a row per case of `source` to `target`: its name, the predicted class, the probability of every class.

    `source` is a file that task=ts_classification reads, with or without labels; the variates are found by their names
    where it has names, else by their order. The scale is that of the training cases.

    Raises:
        ValueError: a variate is missing, a case is longer than the model takes, or the file cannot be read.
    """
    columns = csv_file.Columns(data["label_column"], data["case_column"], data["time_column"])
    parts = readers.read(source, data["layout"], columns, labelled=False)
    cases = fitting(parts[1] or parts[0], task.scale["variates"])
    longest = int(cases.lengths.argmax())
    if cases.lengths[longest] > data["length"]:
        raise ValueError(
            f"{source}: case {cases.names[longest]} has {cases.lengths[longest]} steps, the model takes at most"
            f" {data['length']}: cut it"
        )
    x = to_scale(cases, data["length"], task.scale["mean"], task.scale["std"])
    batches = zip(x.split(BATCH), torch.from_numpy(cases.lengths).split(BATCH), strict=True)
    with torch.inference_mode():
        logits = torch.cat([task({"x": some, "lengths": lengths}) for some, lengths in batches])
    predicted = [task.class_names[i] for i in logits.argmax(1).tolist()]
    table = pd.DataFrame({"case": cases.names, "predicted": predicted})
    for name, column in zip(task.class_names, logits.float().softmax(1).T.numpy(), strict=True):
        table[f"p({name})"] = column
    table.to_csv(target, index=False)
    labels = cases.labels
    right = "" if labels is None else f", {sum(map(str.__eq__, labels, predicted))} of them as the file labels them"
    return f"{len(cases)} cases classified{right}: {target}"


def fitting(cases: Cases, variates: list[str]) -> Cases:
    """The cases with the variates that the model was trained on, in their order."""
    if set(variates) <= set(cases.variates):
        order = [cases.variates.index(name) for name in variates]
        return Cases(**(vars(cases) | {"values": cases.values[:, :, order], "variates": variates}))
    if cases.values.shape[2] != len(variates) or (named(cases.variates) and named(variates)):
        lacking = [name for name in variates if name not in cases.variates]
        raise ValueError(
            f"{cases.file}: no variate {', '.join(lacking[:8])}: the model was trained on {', '.join(variates[:8])}"
            f" ({len(variates)}), the file has {', '.join(cases.variates[:8])} ({len(cases.variates)})"
        )
    return cases


def named(variates: list[str]) -> bool:
    """Whether a file gave its variates names of their own."""
    return variates not in (["value"], [f"v{i + 1}" for i in range(len(variates))])

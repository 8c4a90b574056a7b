"""Splits labelled cases so that every class keeps its share in both parts."""

from collections.abc import Sequence

import numpy as np

REMEDY = {
    "validation": "data.validation=0 trains on all cases",
    "test": "name a file with the test part (data.test_path)",
}


def stratified(labels: Sequence[str], share: float, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(kept, taken) positions in their order: of every class `share` of its cases is taken, at least one and never all.

    what: `validation` or `test`, for the messages. Raises ValueError: a class has one case only.
    """
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    single = classes[counts == 1]
    if len(single):
        raise ValueError(
            f"class {', '.join(map(repr, single[:8].tolist()))} has one case ({len(labels)} cases of {len(classes)}"
            f" classes in all), which cannot be in training and in {what}: add cases, or {REMEDY[what]}"
        )
    generator = np.random.default_rng(seed)
    taken = np.concatenate(
        [
            generator.permutation(np.flatnonzero(labels == name))[: min(max(1, round(share * count)), count - 1)]
            for name, count in zip(classes, counts, strict=True)
        ]
    )
    return np.setdiff1d(np.arange(len(labels)), taken), np.sort(taken)

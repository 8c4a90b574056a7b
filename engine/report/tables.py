"""From run folders to tables: one board per task, with its metrics, varied settings, and groups of seeds."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from engine.report.read import Record

MAIN_METRICS = 4
MOST_KEYS = 16
IGNORED = ("seed", "logger", "paper", "output", "input", "debug", "hydra", "path", "data.root", "data.download")
"""Settings that do not make two runs different."""
SHOWN = {"task", "data", "model", "preset", "logger", "trainer"}
"""Choices with a column of their own, or of no interest."""
ASIDE = {"seed", "mode", "ckpt", "input", "output", "debug", "path", "data.root", "data.path", "data.download"}
LOWER = ("loss", "mse", "mae", "rmse", "mape", "smape", "mase", "error", "err", "nll", "bce", "ppl", "perplexity")
LOWER += ("wer", "cer", "fid", "eer", "ece", "brier", "crps", "rank", "distance", "bpc", "bpd", "huber", "regret")


@dataclass
class Group:
    """Runs that are the same but for the seed.

    Args:
        members: their places in the board's runs.
        counted: those in the mean: the newest finished run of every seed.
        mean: of each metric; also `train_seconds` and `memory_mb`.
        std: sample standard deviation, where two runs or more have the metric.
    """

    members: list[int]
    counted: list[int]
    mean: dict[str, float]
    std: dict[str, float]


@dataclass
class Board:
    """One task's runs and what its tables need.

    Args:
        runs: by data set, then best first.
        metrics: every metric, the most important first; the first `main` of them are shown from the start.
        lower: the metrics of which less is better.
        keys: varied settings, by dotted key or group.
    """

    task: str
    runs: list[Record]
    metrics: list[str]
    main: int
    lower: set[str]
    keys: list[str]
    groups: list[Group]

    @property
    def primary(self) -> str | None:
        """The metric that the board is sorted by."""
        return self.metrics[0] if self.metrics else None


def boards(records: Iterable[Record]) -> list[Board]:
    """A board per task, by name."""
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        tasks[record.task].append(record)
    return [board(task, runs) for task, runs in sorted(tasks.items())]


def board(task: str, runs: list[Record]) -> Board:
    """One task's board."""
    metrics, main = order_metrics(runs)
    lower = {metric for metric in metrics if is_lower(metric, runs)}
    primary = metrics[0] if metrics else None
    keys = varied_keys(runs)
    runs = sorted(runs, key=lambda run: (run.data, *goodness(run.metrics.get(primary), primary in lower), run.name))
    return Board(task, runs, metrics, main, lower, keys, groups(runs))


def goodness(value: float | None, lower: bool) -> tuple[bool, float]:
    """A sort key: best first, missing last."""
    return (value is None, 0.0 if value is None else value if lower else -value)


def order_metrics(runs: list[Record]) -> tuple[list[str], int]:
    """Every metric by importance, and how many of them are main ones.

    The test twin of the monitored metric leads, then what papers state, then other test metrics, then the rest.
    """
    seen = dict.fromkeys(metric for run in runs for metric in run.metrics)
    monitors = Counter(run.monitor for run in runs if run.monitor)
    twins = {f"test/{monitor.partition('/')[2]}" for monitor, _ in monitors.most_common(1)}
    stated = {metric for run in runs for metric in run.published}
    ranked = sorted(seen, key=lambda m: (m not in twins, m not in stated, not m.startswith("test/")))
    tests = sum(metric.startswith("test/") for metric in ranked)
    return ranked, min(len(ranked), max(1, min(MAIN_METRICS, tests)))


def is_lower(metric: str, runs: list[Record]) -> bool:
    """Whether less is better: as the runs say of their monitored metric; by the name for others."""
    name = metric.rpartition("/")[2]
    said = Counter(r.direction for r in runs if r.direction and r.monitor and r.monitor.rpartition("/")[2] == name)
    if said:
        return said.most_common(1)[0][0] == "min"
    return any(word in LOWER for word in name.lower().replace("-", "_").split("_"))


def varied_keys(runs: list[Record]) -> list[str]:
    """Settings that some command line gives and that take two values or more: the commonest, those of the data first.

    What a model or a preset brings along is told by its name and left out.
    """
    count = Counter(key for run in runs for key in {key_of(override) for override in run.overrides})
    names = [k for k, _ in count.most_common() if k not in ASIDE | SHOWN and not k.startswith(("hydra", "logger"))]
    varied = [key for key in names if len({value_of(run, key) for run in runs}) > 1]
    return sorted(varied[:MOST_KEYS], key=lambda key: (not key.startswith("data."), key))


def key_of(override: str) -> str:
    """`+data.horizon=96` -> `data.horizon`."""
    return override.lstrip("+~").partition("=")[0]


def value_of(run: Record, key: str) -> str | None:
    """A setting's value in a run: the choice of a group, or what config.yaml holds (else what the command said)."""
    if key in run.choices:
        return run.choices[key]
    if run.settings:
        return run.settings.get(key)
    return next((o.partition("=")[2] for o in run.overrides if key_of(o) == key), None)


def groups(runs: list[Record]) -> list[Group]:
    """Runs that are the same but for the seed, in the order of their best run."""
    members: dict[Any, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        members[same_but_seed(run)].append(place)
    return [group(runs, places) for places in members.values()]


def same_but_seed(run: Record) -> Any:
    """What runs of one group share: mode, choices and settings, less seed, logger and places."""
    choices = frozenset((k, v) for k, v in run.choices.items() if k != "logger")
    if not run.settings:
        return run.mode, choices, frozenset(o for o in run.overrides if not is_ignored(key_of(o)))
    seed = run.settings.get("seed")
    kept = ((k, v) for k, v in run.settings.items() if not is_ignored(k) and not (k.endswith(".seed") and v == seed))
    return run.mode, choices, frozenset(kept)


def is_ignored(key: str) -> bool:
    """Whether a setting leaves the run what it is."""
    return key in IGNORED or key.partition(".")[0] in IGNORED


def group(runs: list[Record], places: list[int]) -> Group:
    """Mean and spread over the newest finished run of every seed."""
    newest: dict[Any, int] = {}
    for place in sorted(places, key=lambda p: runs[p].made):
        if runs[place].status == "done":
            newest[runs[place].seed] = place
    counted = sorted(newest.values())
    values: dict[str, list[float]] = defaultdict(list)
    for place in counted:
        run = runs[place]
        for metric, value in run.metrics.items():
            values[metric].append(value)
        for name in ("train_seconds", "memory_mb"):
            if getattr(run, name) is not None:
                values[name].append(getattr(run, name))
    means = {name: fmean(found) for name, found in values.items()}
    return Group(places, counted, means, {name: stdev(found) for name, found in values.items() if len(found) > 1})


def published_rows(board: Board) -> list[dict[str, Any]]:
    """Ours beside published: a row per group and published metric, with the relative difference in per cent."""
    rows = []
    for place, one in enumerate(board.groups):
        if not one.counted:
            continue
        run = board.runs[one.counted[0]]
        for metric in board.metrics:
            theirs, ours = run.published.get(metric), one.mean.get(metric)
            if theirs is None or ours is None:
                continue
            rows.append({"group": place, "metric": metric, "ours": ours, "std": one.std.get(metric)})
            rows[-1] |= {"n": len(one.counted), "published": theirs, "difference": difference(ours, theirs)}
            rows[-1] |= {"source": run.source, "changed": run.changed}
    return rows


def difference(ours: float, theirs: float) -> float | None:
    """Ours against theirs in per cent; None where theirs is zero."""
    return 100 * (ours / theirs - 1) if theirs else None

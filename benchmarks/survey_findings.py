"""The survey's runs as cells, and each of its findings as seen or not seen by a stated rule; see survey.py."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

STEPWISE = ("transformer", "informer", "autoformer", "fedformer")
"""The models whose tokens are time steps: the survey's own."""
MODELS = (*STEPWISE, "itransformer", "dlinear")
BASE = {"lookback": 96, "horizon": 96, "depth": 2, "noise": 0.0, "plain": True}
"""The set-up that every analysis varies in one way."""


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The facts of every finished run below `folder`: set-up, seed, scores, cost."""
    return [facts(path.parent) for path in sorted(folder.rglob("results.json")) if done(path)]


def done(path: Path) -> bool:
    """Whether these are the results of a run that came to its end."""
    return json.loads(path.read_text())["status"] == "done"


def facts(path: Path) -> dict[str, Any]:
    """One run's."""
    results = json.loads((path / "results.json").read_text())
    config = yaml.safe_load((path / "config.yaml").read_text())
    data, model, name = config["data"], config["model"], results["choices"]["model"]
    method = bool(config["method"])
    split = model.get("decomposition", False) or method
    return {
        "path": path,
        "model": name,
        "seed": data["seed"],  # that of the training; a test has one of its own
        "lookback": data["lookback"],
        "horizon": data["horizon"],
        "noise": data["input_noise"],
        "windows": data["split"][0] - data["lookback"] - data["horizon"] + 1,
        "depth": model.get("depth", 2),
        "decomposition": split,
        "use_norm": model.get("use_norm", False),
        "plain": not method and split == (name in ("autoformer", "fedformer")) and plain_norm(name, model),
        "mse": results["metrics"]["test/mse"],
        "params": results["params"]["total"],
        "seconds": results["seconds"]["train"],
        "steps": results.get("steps", 0),
        "versions": results["versions"],
    }


def plain_norm(name: str, model: dict[str, Any]) -> bool:
    """Whether window normalisation is as the paper of the model has it: iTransformer's own, nobody else's."""
    return name == "itransformer" or not model.get("use_norm", False)


class Cells:
    """Runs, picked by their facts."""

    def __init__(self, runs: list[dict[str, Any]]):
        self.runs = runs

    def of(self, **wanted: Any) -> list[dict[str, Any]]:
        """The runs with these facts, by seed."""
        found = [run for run in self.runs if all(run[key] == value for key, value in wanted.items())]
        return sorted(found, key=lambda run: run["seed"])

    def mse(self, **wanted: Any) -> list[float]:
        """Their test MSE, one per seed. Raises ValueError where two runs of a seed have these facts."""
        runs = self.of(**wanted)
        if len({run["seed"] for run in runs}) < len(runs):
            raise ValueError(f"{wanted} names several runs of a seed: {[str(run['path']) for run in runs]}")
        return [run["mse"] for run in runs]


@dataclass
class Finding:
    """A statement of the survey about one model, what we measured, and the verdict; None where runs are missing."""

    text: str
    model: str
    measured: str
    seen: bool | None


def change(before: list[float], after: list[float]) -> tuple[float, float]:
    """Mean and standard deviation over the seeds of after / before - 1, seed by seed."""
    pairs = [b / a - 1 for a, b in zip(before, after, strict=True)]
    return mean(pairs), stdev(pairs) if len(pairs) > 1 else 0.0


def judged(text: str, model: str, before: list[float], after: list[float], seen: Any) -> Finding:
    """A finding about the change of MSE from `before` to `after`; seen(mean, deviation) is its rule."""
    if not before or len(before) != len(after):
        return Finding(text, model, "runs are missing", None)
    middle, spread = change(before, after)
    words = f"{mean(before):.3f} → {mean(after):.3f} ({100 * middle:+.1f} ± {100 * spread:.1f} %)"
    return Finding(text, model, words, bool(seen(middle, spread)))


def improves(middle: float, spread: float) -> bool:
    """The rule for `better`: lower MSE by more than the deviation over the seeds."""
    return middle < -spread


def triple(cells: Cells, model: str, horizon: int) -> tuple[list[float], list[float], list[float]]:
    """MSE without decomposition, with it, and with window normalisation in its place, seed by seed.

    DLinear without it is the linear model; iTransformer, which normalises anyhow, has it around the model.
    """
    shape = {"lookback": 96, "horizon": horizon, "depth": 2, "noise": 0.0}
    if model == "dlinear":
        return cells.mse(model="linear", **shape), cells.mse(model="dlinear", **shape), []
    own = model == "itransformer"
    without, split = (cells.mse(model=model, decomposition=d, use_norm=own, **shape) for d in (False, True))
    return without, split, [] if own else cells.mse(model=model, decomposition=False, use_norm=True, **shape)


def findings(cells: Cells) -> list[Finding]:
    """Every statement for every model that has runs for it."""
    return [*about_length(cells), *about_size(cells), *about_decomposition(cells), *about_noise(cells)]


def about_length(cells: Cells) -> list[Finding]:
    """The survey: Transformers over time steps cannot use a longer input; the others' runs are the contrast."""
    found = []
    for model in MODELS:
        longest = max((run["lookback"] for run in cells.runs if run["model"] == model), default=0)
        longest = max(longest, 192)
        before, after = (cells.mse(**BASE | {"model": model, "lookback": steps}) for steps in (96, longest))
        if model in STEPWISE:
            text, rule = f"{longest} steps of input are no better than 96", lambda m, s: not improves(m, s)
        else:
            text, rule = f"{longest} steps of input are better than 96", improves
        found.append(judged(text, model, before, after, rule))
    return found


def about_size(cells: Cells) -> list[Finding]:
    """The survey: 3 to 6 layers are best; of ours, 6 are no better than 3."""
    found = []
    for model in MODELS[:-1]:
        before, after = (cells.mse(**BASE | {"model": model, "depth": depth}) for depth in (3, 6))
        found.append(judged("6 layers are no better than 3", model, before, after, lambda m, s: not improves(m, s)))
    return found


def about_decomposition(cells: Cells) -> list[Finding]:
    """The survey: it lowers the MSE by half and more on ETTm2; the control says what normalisation alone gives."""
    found = []
    for horizon in (96, 336):
        text = f"decomposition lowers the MSE by a fifth or more, horizon {horizon}"
        for model in MODELS:
            without, split, _ = triple(cells, model, horizon)
            if without and split:
                found.append(judged(text, model, without, split, lambda m, s: m <= -0.2 and improves(m, s)))
        found.append(control(cells, horizon))
    return found


def about_noise(cells: Cells) -> list[Finding]:
    """Not the survey's: how sensitive a trained model is to noise it has not been trained on."""
    text, found = "noise of 0.3 on the test inputs costs 5 % or more", []
    for model in MODELS:
        before, after = (cells.mse(**BASE | {"model": model, "noise": noise}) for noise in (0.0, 0.3))
        found.append(judged(text, model, before, after, lambda m, s: m >= 0.05 and m > s))
    return found


def control(cells: Cells, horizon: int) -> Finding:
    """How much of the gain of decomposition normalising each window gives without it, for the plain Transformer."""
    text = f"normalising each window gives at least half of the gain of decomposition, horizon {horizon}"
    without, split, normed = triple(cells, "transformer", horizon)
    if not (without and split and normed):
        return Finding(text, "transformer", "runs are missing", None)
    gains = mean(without) - mean(split), mean(without) - mean(normed)
    measured = f"{mean(without):.3f} → {mean(split):.3f} decomposed, → {mean(normed):.3f} normalised"
    return Finding(text, "transformer", measured, gains[1] >= gains[0] / 2)

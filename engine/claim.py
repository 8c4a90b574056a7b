"""mode=claim: a preset against its baseline on the same seeds; does the paper's claim hold here?"""

import json
from itertools import product
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.compose import compose_run
from engine.errors import UserError
from engine.fit import fit
from engine.resolvers import finished
from engine.results import read_results
from engine.run import Run, log


def claim(run: Run) -> float:
    """Runs both sides on every seed (a finished run is used again), prints and stores the verdict in claim.json.

    The claim holds where the baseline's mean is worse than the preset's by at least `margin`: that share of it, or,
    with `difference: absolute`, that much in the metric's units. A negative margin lets the preset be that much worse.
    `over: {data.name: [A, B]}` runs both sides on every value (or combination) and compares the means over them.

    Returns:
        The gap: how much worse the baseline is.

    Raises:
        UserError: the preset states no claim.
    """
    stated = (run.plain().get("paper") or {}).get("claim")
    if not stated:
        raise UserError("mode=claim needs a preset with a claim: runner mode=catalog lists them, then preset=<name>")
    shared = [o for o in run.overrides if not o.startswith(("mode=", "seed=", "hydra."))]
    sides = {"preset": shared, "baseline": shared + list(stated["baseline"])}
    scores: dict[str, list[float]] = {side: [] for side in sides}
    for seed in stated["seeds"]:
        for side, overrides in sides.items():
            parts = [measured(run, [*overrides, *place, f"seed={seed}"]) for place in places(stated.get("over") or {})]
            scores[side].append(mean(results["metrics"][stated["metric"]] for results in parts))
    verdict = judge(scores["preset"], scores["baseline"], stated)
    if not run.leads:
        return verdict["gap"]
    run.dir.mkdir(parents=True, exist_ok=True)
    (run.dir / "claim.json").write_text(json.dumps(verdict | {"claim": stated, "scores": scores}, indent=1) + "\n")
    show(run, stated, scores, verdict)
    return verdict["gap"]


def places(over: dict[str, list[Any]]) -> list[list[str]]:
    """Every combination of the values, as overrides; one without any where nothing is stated."""
    return [[f"{key}={value}" for key, value in zip(over, values, strict=True)] for values in product(*over.values())]


def measured(run: Run, overrides: list[str]) -> dict[str, Any]:
    """The results of one run: those of the finished run of the same fingerprint, or of a new one."""
    part = compose_run(overrides, run.dir, sweep=run.dir.name)
    if finished(part.dir):
        log.info(f"{part.dir}: finished before, used again")
    else:
        try:
            fit(part)
        finally:
            part.close()
    return read_results(part.dir)


def judge(ours: list[float], theirs: list[float], stated: dict[str, Any]) -> dict[str, Any]:
    """Gap, its spread over the seeds (each seed's pair compared), and whether the claim holds."""
    sign = 1 if stated["direction"] == "min" else -1
    absolute = stated.get("difference", "relative") == "absolute"
    gap = sign * (mean(theirs) - mean(ours)) / (1 if absolute else abs(mean(ours)))
    pairs = [sign * (b - a) / (1 if absolute else abs(a)) for a, b in zip(ours, theirs, strict=True)]
    spread = stdev(pairs) if len(pairs) > 1 else 0.0
    margin = stated["margin"]
    return {"holds": gap >= margin, "gap": gap, "spread": spread, "seeds": len(pairs), "margin": margin}


def show(run: Run, stated: dict[str, Any], scores: dict[str, list[float]], verdict: dict[str, Any]) -> None:
    """Prints the scores and the verdict."""
    table = Table(title=f"claim: {stated['text']}", title_justify="left")
    for column in (stated["metric"], "mean", *(f"seed {seed}" for seed in stated["seeds"])):
        table.add_column(column, justify="right")
    labels = {"preset": str(run.choices["preset"]), "baseline": " ".join(stated["baseline"])}
    for side, values in scores.items():
        table.add_row(labels[side], f"{mean(values):.4f}", *(f"{value:.4f}" for value in values))
    console = Console()
    console.print(table)
    form = "{:+.4f}" if stated.get("difference") == "absolute" else "{:+.1%}"
    gap, spread, margin = (form.format(verdict[key]).replace("%", " %") for key in ("gap", "spread", "margin"))
    outcome = "holds" if verdict["holds"] else "does NOT hold"
    noise = "" if abs(verdict["gap"]) > verdict["spread"] else "; the gap is within the spread over seeds"
    console.print(
        f"The claim {outcome}: the baseline is worse by {gap} (needed {margin}) over {verdict['seeds']} seeds, "
        f"spread {spread.lstrip('+')}{noise}.",
        soft_wrap=True,
    )

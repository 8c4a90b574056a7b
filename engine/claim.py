"""mode=claim: a preset against its baseline on the same seeds; does the paper's claim hold here?"""

import json
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

    The claim holds where the baseline's mean is worse than the preset's by at least `margin` of it; a negative margin
    lets the preset be worse by that much.

    Returns:
        The relative gap: how much worse the baseline is, as a fraction of the preset's metric.

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
            results = measured(run, [*overrides, f"seed={seed}"])
            scores[side].append(results["metrics"][stated["metric"]])
    verdict = judge(scores["preset"], scores["baseline"], stated)
    if not run.leads:
        return verdict["gap"]
    run.dir.mkdir(parents=True, exist_ok=True)
    (run.dir / "claim.json").write_text(json.dumps(verdict | {"claim": stated, "scores": scores}, indent=1) + "\n")
    show(run, stated, scores, verdict)
    return verdict["gap"]


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
    gap = sign * (mean(theirs) - mean(ours)) / abs(mean(ours))
    pairs = [sign * (b - a) / abs(a) for a, b in zip(ours, theirs, strict=True)]
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
    gap, spread, margin = (f"{100 * verdict[key]:+.1f} %" for key in ("gap", "spread", "margin"))
    outcome = "holds" if verdict["holds"] else "does NOT hold"
    noise = "" if abs(verdict["gap"]) > verdict["spread"] else "; the gap is within the spread over seeds"
    console.print(
        f"The claim {outcome}: the baseline is worse by {gap} (needed {margin}) over {verdict['seeds']} seeds, "
        f"spread {spread.lstrip('+')}{noise}.",
        soft_wrap=True,
    )

"""Eleven sets of the UEA archive, five classifiers, three seeds: `make classification` (about an hour on two cores).

Every cell is an ordinary run, `runner <row> data.name=<set> seed=<s>`; finished ones are used again. Sets that are
not on this machine are downloaded. Writes a section of benchmarks/reproductions.md.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import mean, stdev

import sections

HERE = Path(__file__).resolve().parent
RUNNER = Path(sys.executable).with_name("runner")
SETS = (
    *("ArticularyWordRecognition", "AtrialFibrillation", "BasicMotions", "Epilepsy", "ERing", "JapaneseVowels"),
    *("Libras", "NATOPS", "PenDigits", "RacketSports", "StandWalkJump"),
)
SEEDS, ONE = (0, 1, 2), (0,)
MODELS = {  # what they are called in the table: (their command, seeds)
    "vsformer": ("preset=vsformer/uea", SEEDS),
    "transformer": ("preset=ts_survey/classification", SEEDS),
    "rocket": ("preset=ts_survey/classification model=rocket", SEEDS),
    "knn_dtw": ("preset=ts_survey/classification model=knn_dtw data.scale=none", ONE),  # nothing in it is random
    "shapeformer": ("preset=shapeformer", SEEDS),
}
PUBLISHED = "shapeformer"


def run(model: str, name: str, seed: int, folder: Path) -> dict:
    """One finished run's results, made now or before."""
    row, _ = MODELS[model]
    path = folder / f"{model}-{name}-{seed}"
    results = path / "results.json"
    if not results.exists() or json.loads(results.read_text())["status"] != "done":
        command = [str(RUNNER), *row.split(), f"data.name={name}", f"seed={seed}", "trainer=cpu", "logger=none"]
        call = subprocess.run([*command, f"hydra.run.dir={path}"], capture_output=True, text=True)
        if call.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{call.stderr[-2000:]}")
    return json.loads(results.read_text())


def accuracy(runs: list[dict]) -> str:
    """Mean and spread over the seeds."""
    ours = [r["metrics"]["test/accuracy"] for r in runs]
    return f"{mean(ours):.3f}" + (f" ± {stdev(ours):.3f}" if len(ours) > 1 else "")


def line(name: str, runs: dict[str, list[dict]]) -> str:
    """One set: accuracies, the published one, and seconds of a run."""
    published = runs[PUBLISHED][0]["published"]["test/accuracy"]
    seconds = (f"{mean(r['seconds']['total'] for r in runs[model]):.0f}" for model in MODELS)
    cells = [name, *(accuracy(runs[model]) for model in MODELS), f"{published:.3f}", " / ".join(seconds)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs every set with every model on every seed and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("outputs/classification"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    cells = [(model, name, seed) for seed in SEEDS for model in MODELS for name in SETS if seed in MODELS[model][1]]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        made = list(pool.map(lambda cell: run(*cell, arguments.folder), cells))
    runs = {name: {model: [] for model in MODELS} for name in SETS}
    for (model, name, _), results in zip(cells, made, strict=True):
        runs[name][model].append(results)
    means = [mean(mean(r["metrics"]["test/accuracy"] for r in runs[name][model]) for name in SETS) for model in MODELS]
    published = mean(runs[name][PUBLISHED][0]["published"]["test/accuracy"] for name in SETS)
    versions = made[-1]["versions"]
    text = [
        f"Made by `make classification`, {date.today()}: torch {versions['torch']}, CPU, {arguments.jobs} runs at a "
        "time with one thread each; test accuracy on the archive's own split, seeds from 0 up, mean ± standard "
        "deviation. One setting per model for all sets (ShapeFormer's window and number of shapelets are the paper's, "
        "per set), trained on the whole training part, the last epoch counts: nothing is selected. The published "
        "tables, whose column this is, take the epoch that is best on the test part.",
        "",
        "| set | " + " | ".join(MODELS) + " | ShapeFormer, published | seconds of a run |",
        "| --- |" + " ---: |" * (len(MODELS) + 2),
        *(line(name, runs[name]) for name in SETS),
        "| mean | " + " | ".join(f"{m:.3f}" for m in means) + f" | {published:.3f} | |",
        "",
        "The rows: " + ", ".join(f"{model} is `{row}`" for model, (row, _) in MODELS.items()) + ".",
    ]
    sections.replace(HERE / "reproductions.md", "Classification of series: the UEA archive", text)


if __name__ == "__main__":
    main()

"""Eleven sets of the UEA archive, five classifiers, three seeds: `make classification` (about an hour on two cores).

A sweep per classifier and set, `runner -m <row> data.name=<set> seed=<seeds>`; finished runs are used again. Sets that
are not on this machine are downloaded. Writes a section of benchmarks/reproductions.md.
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
MODELS = {  # what they are called in the table: (their command, seeds)
    "shapeformer": ("preset=shapeformer", "0,1,2"),
    "vsformer": ("preset=vsformer/uea", "0,1,2"),
    "transformer": ("preset=ts_survey/classification", "0,1,2"),
    "rocket": ("preset=ts_survey/classification model=rocket", "0,1,2"),
    "knn_dtw": ("preset=ts_survey/classification model=knn_dtw data.scale=none", "0"),  # nothing in it is random
}
PUBLISHED = "shapeformer"


def sweep(model: str, name: str, folder: Path) -> None:
    """One model on one set, a run per seed."""
    row, seeds = MODELS[model]
    command = [str(RUNNER), "-m", *row.split(), f"data.name={name}", f"seed={seeds}"]
    where = ["trainer=cpu", "logger=none", f"hydra.sweep.dir={folder / model / name}"]
    call = subprocess.run([*command, *where], capture_output=True, text=True)
    if call.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{call.stdout[-2000:]}{call.stderr[-2000:]}")


def finished(folder: Path) -> list[dict]:
    """The results of the runs that came to their end."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))]
    return [r for r in results if r["status"] == "done"]


def scores(runs: list[dict]) -> list[float]:
    return [r["metrics"]["test/accuracy"] for r in runs]


def accuracy(runs: list[dict]) -> str:
    """Mean and spread over the seeds, of which the table says how many where they are not all."""
    ours = scores(runs)
    return f"{mean(ours):.3f}" + (f" ± {stdev(ours):.3f}" if len(ours) > 1 else "") if ours else "-"


def took(runs: list[dict]) -> str:
    """Seconds of a run, its start and its figures included."""
    return f"{mean(r['seconds']['total'] for r in runs):.0f}" if runs else "-"


def overall(runs: dict[str, dict[str, list[dict]]], model: str) -> str:
    """The mean over the sets, where every one has been run."""
    made = [scores(runs[name][model]) for name in SETS]
    return f"{mean(mean(of_set) for of_set in made):.3f}" if all(made) else "-"


def line(name: str, runs: dict[str, list[dict]]) -> str:
    """One set: accuracies, the published one, seeds and seconds of a run."""
    published = runs[PUBLISHED][0]["published"]["test/accuracy"]
    seeds = " / ".join(str(len(runs[model])) for model in MODELS)
    seconds = " / ".join(took(runs[model]) for model in MODELS)
    cells = [name, *(accuracy(runs[model]) for model in MODELS), f"{published:.3f}", seeds, seconds]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs every set with every model on every seed and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("outputs/classification"))
    parser.add_argument("--draw", action="store_true", help="only write what has been run")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    pairs = [(model, name) for model in MODELS for name in SETS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda pair: sweep(*pair, arguments.folder), [] if arguments.draw else pairs))
    runs = {name: {m: finished(arguments.folder / m / name) for m in MODELS} for name in SETS}
    published = mean(runs[name][PUBLISHED][0]["published"]["test/accuracy"] for name in SETS)
    versions = runs[SETS[0]][PUBLISHED][0]["versions"]
    text = [
        f"Made by `make classification`, {date.today()}: torch {versions['torch']}, CPU, {arguments.jobs} runs at a "
        "time with one thread each; test accuracy on the archive's own split, seeds from 0 up, mean ± standard "
        "deviation. Trained on the whole training part, the last epoch counts; of the settings, the epochs and "
        "ShapeFormer's window and number of shapelets (the paper's) are per set. What was chosen how: "
        "[misses.md](misses.md). The published "
        "tables, whose column this is, take the epoch that is best on the test part.",
        "",
        "| set | " + " | ".join(MODELS) + " | ShapeFormer, published | seeds | seconds of a run |",
        "| --- |" + " ---: |" * (len(MODELS) + 3),
        *(line(name, runs[name]) for name in SETS),
        "| mean | " + " | ".join(overall(runs, model) for model in MODELS) + f" | {published:.3f} | | |",
        "",
        "The rows: " + ", ".join(f"{model} is `{row}`" for model, (row, _) in MODELS.items()) + ".",
    ]
    sections.replace(HERE / "reproductions.md", "Classification of series: the UEA archive", text)


if __name__ == "__main__":
    main()

"""Published rows on real data, ours beside the paper's: `python benchmarks/reproduce.py` (or `make reproductions`).

Every row is an ordinary run, `runner <row> seed=<s>`; finished ones are used again.
Writes a section of benchmarks/reproductions.md.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import mean, median, stdev

import sections

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)
ROWS = {
    "preset=itransformer/etth1 data.horizon=96": SEEDS,
    "preset=itransformer/etth1 data.horizon=192": SEEDS,
    "preset=itransformer/etth2 data.horizon=96": SEEDS,
    "preset=itransformer/etth2 data.horizon=192": SEEDS,
    "preset=itransformer/ettm1 data.horizon=96": SEEDS,
    "preset=ltsf_linear/etth1 model=dlinear data.horizon=96": SEEDS,
    "preset=ltsf_linear/etth1 model=dlinear data.horizon=192": SEEDS,
    "preset=ltsf_linear/exchange model=dlinear data.horizon=96": SEEDS,
    "preset=ltsf_linear/exchange model=dlinear model.init=ones data.horizon=96": range(20),
    "preset=s_mamba/etth1 data.horizon=96": SEEDS,
    "preset=s_mamba/exchange data.horizon=96": SEEDS,
}


def run(row: str, seed: int, folder: Path) -> dict:
    """One finished run's results, made now or before."""
    path = folder / f"{row.replace('preset=', '').replace('=', '-').replace('/', '-').replace(' ', '_')}_seed-{seed}"
    results = path / "results.json"
    if not results.exists() or json.loads(results.read_text())["status"] != "done":
        command = [str(Path(sys.executable).with_name("runner")), *row.split(), f"seed={seed}", "logger=none"]
        call = subprocess.run([*command, f"hydra.run.dir={path}"], capture_output=True, text=True)
        if call.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{call.stderr[-2000:]}")
    return json.loads(results.read_text())


def line(row: str, runs: list[dict]) -> str:
    """One row of the table: mean and spread over the seeds (and the median of many), the published figure, the gap."""
    published = runs[0]["published"]
    cells = [f"`{row}`"]
    for metric in ("test/mse", "test/mae"):
        ours = [r["metrics"][metric] for r in runs]
        gap = 100 * (mean(ours) / published[metric] - 1)
        middle = f", median {median(ours):.4f}" if len(ours) > len(SEEDS) else ""
        cells += [f"{mean(ours):.4f} ± {stdev(ours):.4f}{middle}", f"{published[metric]:.3f}", f"{gap:+.1f} %"]
    cells += [str(len(runs)), published["source"]]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs every row on every seed and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--folder", type=Path, default=Path("outputs/reproductions"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = [(row, seed) for row, seeds in ROWS.items() for seed in seeds]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda pair: run(*pair, arguments.folder), pairs))
    runs = {row: [r for (other, _), r in zip(pairs, results, strict=True) if other == row] for row in ROWS}
    versions = results[-1]["versions"]
    head = "| command | MSE | paper | diff | MAE | paper | diff | seeds | source of the published figure |"
    text = [
        f"Made by `make reproductions`, {date.today()}: torch {versions['torch']}, lightning {versions['lightning']}, "
        f"CPU, {arguments.jobs} runs at a time with one thread each; seeds from 0 up, mean ± standard deviation. "
        "Every test window counts.",
        "",
        head,
        "| --- |" + " ---: |" * 7 + " --- |",
        *(line(row, runs[row]) for row in ROWS),
        "",
        "Why a row misses by more than 3 %: [misses.md](misses.md).",
    ]
    sections.replace(HERE / "reproductions.md", "Forecasting", text)


if __name__ == "__main__":
    main()

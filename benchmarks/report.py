"""mode=report over many generated run folders, timed as a whole process: `python benchmarks/report.py [--runs 2000]`.

The folders hold what a run leaves (results.json with details, config.yaml, metrics.csv, a figure), with made-up
numbers: sweeps of four models over seeds, horizons, widths and learning rates on three data sets, a few runs failed.
"""

import argparse
import csv
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

from omegaconf import OmegaConf

from engine import ROOT
from engine.compose import compose_run
from engine.fingerprint import code_hash

MODELS = {"itransformer": 214_936, "s_mamba": 1_204_224, "dlinear": 4_656, "transformer": 531_200}
DATA, HORIZONS, WIDTHS, RATES = ("etth1", "ettm1", "weather"), (96, 192, 336), (64, 128, 256), (1e-4, 5e-4)
SEEDS = range(10)
STEPS = 60
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63606060f80f00010401005fe5c34b0000000049454e44ae426082"
)


def generate(folder: Path, runs: int) -> None:
    """Writes `runs` run folders below `folder`."""
    draw = random.Random(0)
    configs = {}
    for choice in islice(product(SEEDS, MODELS, DATA, HORIZONS, WIDTHS, RATES), runs):
        seed, model, data, horizon, width, rate = choice
        overrides = [f"model={model}", f"data={data}", f"data.horizon={horizon}", f"optim.lr={rate}"]
        overrides.append(f"model.{'moving_average' if model == 'dlinear' else 'd_model'}={width}")
        key = tuple(overrides)
        if key not in configs:
            made = compose_run(overrides, folder)
            configs[key] = OmegaConf.to_yaml(made.cfg, resolve=True), made.choices
        target = folder / "ts_forecast" / f"{model}-{draw.getrandbits(32):08x}"
        write_run(target, draw, (seed, model, horizon, width, rate), overrides, *configs[key])


def write_run(
    target: Path, draw: random.Random, choice: tuple, overrides: list[str], config: str, choices: dict
) -> None:
    """One folder, as mode=fit leaves it."""
    seed, model, horizon, width, rate = choice
    level = 0.3 + horizon / 2000 + 0.02 * list(MODELS).index(model) + 8 * abs(rate - 3e-4) * 64 / width
    score = level + draw.gauss(0, 0.004)
    failed = draw.random() < 0.02
    results = {
        "status": "failed" if failed else "done",
        "mode": "fit",
        "fingerprint": target.name.rpartition("-")[2],
        "choices": {k: v for k, v in choices.items() if not k.startswith("hydra/")},
        "overrides": [*overrides, f"seed={seed}"],
        "seed": seed,
        "paper": None,
        "published": {"test/mse": 0.4, "test/mae": 0.41, "source": "made up", "changed": []} if width == 128 else None,
        "metrics": {} if failed else {"val/mse": score * 0.9, "test/mse": score, "test/mae": score * 1.04},
        "params": {"total": MODELS[model] * width // 128, "trainable": MODELS[model] * width // 128},
        "flops": MODELS[model] * width,
        "monitor": "val/mse",
        "direction": "min",
        "details": {f"{name}_per_step": [draw.random() for _ in range(horizon)] for name in ("mse", "mae")},
        "seconds": {"train": width * draw.uniform(0.4, 0.6), "total": width * 0.7},
        "figures": ["figures/loss.png"],
        "peak_memory_mb": 400 + width * draw.uniform(0.9, 1.1),
        "versions": {"code": code_hash() if seed else "0ld0c0de"},
    }
    (target / "figures").mkdir(parents=True)
    (target / "results.json").write_text(json.dumps(results, indent=1))
    (target / "config.yaml").write_text(config.replace("seed: 0", f"seed: {seed}"))
    (target / "figures" / "loss.png").write_bytes(PIXEL)
    with (target / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "epoch", "train/loss", "lr", "val/mse", "val/mae"])
        for step in range(1, STEPS + 1):
            loss = score * (1 + 2 * math.exp(-step / 12)) * draw.uniform(0.97, 1.03)
            scores = [loss * 0.92, loss * 0.95] if step % 10 == 0 else ["", ""]
            rows.writerow([50 * step, step // 10, loss, rate, *scores])


def main() -> None:
    """Generates the folders and prints the seconds of three reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="an empty folder for the runs and the report, to look at")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        generate(folder, arguments.runs)
        command = [sys.executable, str(ROOT / "runner.py"), "mode=report", f"path={folder}"]
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run(command, check=True, cwd=temporary, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            size = (folder / "report.html").stat().st_size / 2**20
            print(f"{arguments.runs:,} runs: {seconds:.2f} s as a whole process, page of {size:.1f} MiB")


if __name__ == "__main__":
    main()

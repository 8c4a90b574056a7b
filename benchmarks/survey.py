"""The survey's analyses (arXiv 2202.07125) on our models, drawn and judged: `make survey`.

Robustness to input length, model size, seasonal-trend decomposition with its control, and noise on the test inputs:
sweeps `runner -m preset=ts_survey/...` into one folder, where a job that two sweeps share is run once and
finished ones are used again; the noise is `mode=test` of their checkpoints. Writes benchmarks/survey/<data>.md and its
figures. The longest input and the longer horizon, which cost most, are for the plain Transformer and the cheap models.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from survey_findings import BASE, MODELS, STEPWISE, Cells, read_runs
from survey_page import write_page

HERE = Path(__file__).resolve().parent
RUNNER = str(Path(sys.executable).with_name("runner"))
NOISES = (0.1, 0.3)
SHARED = (
    *("data.test_stride=12", "logger=none", "trainer=cpu"),
    "trainer.check_val_every_n_epoch=2",  # at the end alone: the validation split is as long as the training
)


def sweeps() -> list[list[list[str]]]:
    """Two lists of sweeps: no two sweeps of one list have a job in common, so they may run side by side."""
    lengths = {m: "48,96,192" if m in STEPWISE[1:] else "48,96,192,336" for m in MODELS}
    horizons = {m: "96" if m in STEPWISE[1:] else "96,336" for m in MODELS}
    decomposed = ["preset=ts_survey/decomp", "model.decomposition=false,true"]
    around = ["preset=ts_survey/robust", "data.lookback=96", "data.horizon=96,336"]
    return [
        [["preset=ts_survey/robust", f"model={m}", f"data.lookback={lengths[m]}"] for m in MODELS],
        [
            *(["preset=ts_survey/size", f"model={m}", "model.depth=3,6"] for m in MODELS[:-1]),
            *([*decomposed, f"model={m}", f"data.horizon={horizons[m]}"] for m in STEPWISE),
            ["preset=ts_survey/use_norm", "model=transformer", "data.horizon=96,336"],
            [*around, "model=itransformer", "method=none,decomposition"],
            [*around, "model=linear,dlinear"],
        ],
    ]


def call(arguments: list[str]) -> None:
    """One `runner` process; its last words if it fails."""
    done = subprocess.run([RUNNER, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"runner {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def sweep(overrides: list[str], more: list[str], folder: Path) -> None:
    """One sweep of ordinary runs; what has finished is skipped."""
    call(["-m", *overrides, *SHARED, *more, f"hydra.sweep.dir={folder / 'runs'}"])


def add_noise(run: dict, noise: float, folder: Path) -> None:
    """Scores a finished run's checkpoint on noisy test inputs, unless that was done."""
    target = folder / "noise" / f"{run['path'].name}-{noise}"
    if not (target / "results.json").exists():
        ends = [f"ckpt={run['path'] / 'best.ckpt'}", f"data.input_noise={noise}", "logger=none"]
        call(["mode=test", *ends, f"hydra.run.dir={target}"])


def main() -> None:
    """Runs what is missing, then draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--data", default="etth1", help="another data set of the same format, e.g. ettm1")
    parser.add_argument("--seeds", default="0,1,2", help="which seeds every set-up runs on")
    parser.add_argument("--folder", type=Path, default=Path("outputs/survey"))
    parser.add_argument("--draw", action="store_true", help="only draw and write what has been run")
    parser.add_argument("overrides", nargs="*", help="more settings of every run, e.g. trainer.max_epochs=1")
    arguments = parser.parse_args()
    more = [f"data={arguments.data}", f"seed={arguments.seeds}", *arguments.overrides]
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = arguments.folder / arguments.data
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for group in [] if arguments.draw else sweeps():
            list(pool.map(lambda overrides: sweep(overrides, more, folder), group))
        plain = [run for run in Cells(read_runs(folder)).of(**BASE) if run["model"] in MODELS]
        wanted = [] if arguments.draw else [(run, noise) for run in plain for noise in NOISES]
        list(pool.map(lambda pair: add_noise(*pair, folder), wanted))
    write_page(Cells(read_runs(folder)), HERE / "survey", arguments.data, arguments.jobs)


if __name__ == "__main__":
    main()

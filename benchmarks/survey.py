"""The survey's analyses (arXiv 2202.07125) on our models, drawn and judged: `make survey`, or `python benchmarks/survey.py`.

Robustness to input length, model size, seasonal-trend decomposition with its control, and noise on the test inputs:
sweeps `runner -m preset=ts_survey/... seed=0,1,2` into one folder, where a job that two sweeps share is run once and
finished ones are used again; the noise is `mode=test` of their checkpoints. Writes benchmarks/survey/<data>.md and PNGs.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from survey_findings import Cells, read_runs
from survey_page import write_page

HERE = Path(__file__).resolve().parent
RUNNER = str(Path(sys.executable).with_name("runner"))
STEPWISE = ("transformer", "informer", "autoformer", "fedformer")
"""The models whose tokens are time steps: the survey's own."""
MODELS = (*STEPWISE, "itransformer", "dlinear")
LOOKBACKS, DEPTHS, HORIZONS, NOISES = (48, 96, 192, 336), (1, 2, 3, 6), (96, 336), (0.1, 0.3)
SHARED = ("seed=0,1,2", "data.test_stride=12", "logger=none", "trainer=cpu")


def listed(values: Iterable) -> str:
    """1,2,3"""
    return ",".join(map(str, values))


def sweeps() -> list[list[list[str]]]:
    """Two lists of sweeps: no two sweeps of one list have a job in common, so they may run side by side."""
    lengths = [["preset=ts_survey/robust", f"model={m}", f"data.lookback={listed(LOOKBACKS)}"] for m in MODELS]
    sizes = [["preset=ts_survey/size", f"model={m}", f"model.depth={listed(DEPTHS)}"] for m in MODELS[:-1]]
    horizons = f"data.horizon={listed(HORIZONS)}"
    splits = [["preset=ts_survey/decomp", f"model={m}", "model.decomposition=false,true", horizons] for m in STEPWISE]
    others = [
        ["preset=ts_survey/use_norm", "model=transformer", horizons],
        ["preset=ts_survey/robust", "model=itransformer", "data.lookback=96", "method=none,decomposition", horizons],
        ["preset=ts_survey/robust", "model=linear,dlinear", "data.lookback=96", horizons],
    ]
    return [lengths[::-1], sizes + splits + others]


def call(arguments: list[str]) -> None:
    """One `runner` process; its last words if it fails."""
    done = subprocess.run([RUNNER, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"runner {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def sweep(overrides: list[str], data: str, folder: Path) -> None:
    """One sweep of ordinary runs; what has finished is skipped."""
    call(["-m", *overrides, f"data={data}", *SHARED, f"hydra.sweep.dir={folder / 'runs'}"])


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
    parser.add_argument("--folder", type=Path, default=Path("outputs/survey"))
    parser.add_argument("--draw", action="store_true", help="only draw and write what has been run")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = arguments.folder / arguments.data
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for group in [] if arguments.draw else sweeps():
            list(pool.map(lambda overrides: sweep(overrides, arguments.data, folder), group))
        plain = Cells(read_runs(folder)).of(lookback=96, horizon=96, depth=2, noise=0.0, plain=True)
        wanted = [] if arguments.draw else [(run, noise) for run in plain for noise in NOISES]
        list(pool.map(lambda pair: add_noise(*pair, folder), wanted))
    write_page(Cells(read_runs(folder)), HERE / "survey", arguments.data, arguments.jobs)


if __name__ == "__main__":
    main()

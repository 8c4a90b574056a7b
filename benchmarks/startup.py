"""Start-up: `runner --help` and `--cfg job` as whole processes against a bare Hydra application of the same config.

`python benchmarks/startup.py` (part of `make bench`). Median of ten after a warm-up, taking turns.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import CONF

BARE = """
import sys
import hydra
from omegaconf import OmegaConf
for name in ("at", "run_dir", "run_name"):  # the config names them; a bare application needs them to exist
    OmegaConf.register_new_resolver(name, lambda *a: "bare")
@hydra.main(version_base="1.3", config_path=sys.argv.pop(1), config_name="config")
def main(cfg): ...
main()
"""
RUNS = 10


def seconds(command: list[str], folder: Path) -> float:
    """Wall time of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=folder)
    return time.perf_counter() - start


def main() -> None:
    """Prints a line per command."""
    runner = str(Path(sys.executable).with_name("runner"))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        for option in (["--help"], ["--cfg", "job"]):
            ours, theirs = [], []
            for _ in range(RUNS + 1):
                ours.append(seconds([runner, *option], Path(folder)))
                theirs.append(seconds([sys.executable, str(bare), str(CONF), *option], Path(folder)))
            a, b = statistics.median(ours[1:]), statistics.median(theirs[1:])
            print(f"runner {' '.join(option)}: {a:.2f} s, bare Hydra {b:.2f} s: {a - b:+.2f} s (median of {RUNS})")


if __name__ == "__main__":
    main()

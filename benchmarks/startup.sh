#!/usr/bin/env bash
# Whole-process time of `runner --help` and `runner --cfg job` against a bare Hydra application of the same config:
# median of ten, taking turns.   bash benchmarks/startup.sh
set -eu
bin=$(cd "$(dirname "${PYTHON:-$(command -v python)}")" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/bare.py" <<'PY'
import sys
import hydra
from omegaconf import OmegaConf
for name in ("at", "run_dir", "run_name"):  # the config names them; a bare application needs them to exist
    OmegaConf.register_new_resolver(name, lambda *a: "bare")
@hydra.main(version_base="1.3", config_path=sys.argv.pop(1), config_name="config")
def main(cfg): ...
main()
PY
cd "$work"
exec "$bin/python" - "$bin" "$root/conf" "$work/bare.py" <<'PY'
import statistics, subprocess, sys, time
bin, conf, bare = sys.argv[1:]
def once(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
for option in (["--help"], ["--cfg", "job"]):
    ours, theirs = [], []
    for _ in range(11):
        ours.append(once([f"{bin}/runner", *option]))
        theirs.append(once([f"{bin}/python", bare, conf, *option]))
    a, b = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(f"{' '.join(option)}: runner {a:.2f} s, bare Hydra {b:.2f} s: {a - b:+.2f} s (median of ten)")
PY

"""Every paper's claim on its laptop experiment, into CLAIMS.md: `make claims`, or `... claims.py [preset ...]`."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(sys.executable).with_name("runner")


def row(preset: str) -> str:
    """Runs one claim (finished runs are used again) and gives its line of the table."""
    folder = ROOT / "outputs" / "claims" / preset
    command = [str(RUNNER), "mode=claim", f"preset={preset}", "logger=none", f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True)
    made = json.loads((folder / "claim.json").read_text())
    ours, theirs = (mean(made["scores"][side]) for side in ("preset", "baseline"))
    verdict = "holds" if made["holds"] else "does not hold"
    cells = [f"`{preset}`", made["claim"]["text"], f"{ours:.4f}", f"{theirs:.4f}"]
    cells += [f"{100 * made['gap']:+.1f} % ± {100 * made['spread']:.1f}", f"{100 * made['margin']:+.1f} %", verdict]
    return "| " + " | ".join([*cells, str(made["seeds"])]) + " |"


def main() -> None:
    """All laptop presets, or those named."""
    presets = sys.argv[1:] or sorted(path.stem for path in (ROOT / "conf/preset").glob("[!_]*.yaml"))
    lines = [
        "# Claims of the papers, on their laptop experiments",
        "",
        f"Made by `make claims`, {date.today()}. Gap: how much worse the baseline's mean is, relative, with its spread",
        "over seeds; the claim holds where the gap reaches the margin.",
        "",
        "| preset | claim | ours | baseline | gap | margin | verdict | seeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: |",
        *(row(preset) for preset in presets),
    ]
    (ROOT / "CLAIMS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

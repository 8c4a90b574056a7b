"""Runs every speed benchmark on this machine and writes benchmarks/speed.md: `make bench`."""

import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ("step.py", "epoch.py", "startup.py", "report.py")


def main() -> None:
    """Each script in a process of its own; its last lines are its results."""
    lines = [
        "# What the runner costs",
        "",
        f"Made by `make bench`, {date.today()}: {os.cpu_count()} cores ({platform.machine()}, no GPU), Python "
        f"{platform.python_version()}, torch {version('torch')}, lightning {version('lightning')}, hydra-core "
        f"{version('hydra-core')}.",
        "",
    ]
    for script in SCRIPTS:
        call = subprocess.run([sys.executable, str(HERE / script)], stdout=subprocess.PIPE, text=True, check=True)
        print(call.stdout, end="")
        lines += [f"- {line}" for line in call.stdout.splitlines() if line]
    (HERE / "speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

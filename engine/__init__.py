"""What surrounds a run: modes, run directory, checks, results, tracking."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"

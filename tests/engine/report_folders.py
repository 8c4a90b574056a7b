"""Run folders for the tests of reports: copies of a real finished run with some of its values changed."""

import json
import shutil
from pathlib import Path
from typing import Any

from command import Outcome


def copy_run(
    fitted: Outcome, target: Path, seed: int = 0, config: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """The finished run once more at `target`, with another seed, lines of config.yaml and values of results.json.

    Args:
        config: `{"horizon: 12": "horizon: 24"}`: what is replaced by what.
        changes: `results.json` keys; a mapping is merged into the one that stands there.
    """
    target.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv"):
        shutil.copy(fitted.dir / name, target)
    shutil.copytree(fitted.dir / "figures", target / "figures")
    results = json.loads((fitted.dir / "results.json").read_text()) | {"seed": seed}
    for key, value in changes.items():
        before = results.get(key)
        results[key] = before | value if isinstance(before, dict) and isinstance(value, dict) else value
    results["overrides"] = [*results["overrides"], f"seed={seed}"]
    (target / "results.json").write_text(json.dumps(results))
    text = (target / "config.yaml").read_text().replace("seed: 0", f"seed: {seed}")
    for old, new in (config or {}).items():
        assert old in text
        text = text.replace(old, new)
    (target / "config.yaml").write_text(text)
    return target


def sweep(fitted: Outcome, folder: Path) -> Path:
    """Two models, two learning rates, three seeds; figures published for one of them; a failed run of other code.

    Their test/mse is `rank / 10 + seed / 100`: itransformer at 1e-3 is rank 1 and at 1e-2 rank 2, dlinear 3 and 10.
    """
    folder = folder / "outputs"
    for rank, model, rate in (
        (1, "itransformer", 0.001),
        (2, "itransformer", 0.01),
        (3, "dlinear", 0.001),
        (10, "dlinear", 0.01),
    ):
        for seed in (0, 1, 2):
            changed: dict[str, Any] = {
                "choices": {"model": model, "preset": "paper/row" if rank == 1 else None},
                "overrides": [f"model={model}", f"optim.lr={rate}", "logger=none"],
                "metrics": {"test/mse": rank / 10 + seed / 100, "test/mae": rank / 5},
                "seconds": {"train": 10.0 * rank, "total": 10.0 * rank + 1},
            }
            if rank == 1:
                changed["published"] = {"test/mse": 0.1, "source": "table 1", "changed": ["optim.lr=0.001"]}
            target = folder / "ts_forecast" / f"{model}-{rank}{seed}"
            copy_run(fitted, target, seed, {"lr: 0.001": f"lr: {rate}"}, **changed)
    failed = {"status": "failed", "metrics": None, "error": "no memory left", "choices": {"model": "s_mamba"}}
    copy_run(fitted, folder / "ts_forecast" / "s_mamba-bad", **failed, versions={"code": "0ld0c0de"})
    return folder

"""mode=catalog: every preset, from its YAML alone."""

from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from engine import CONF
from engine.explain import options
from engine.run import Run


def catalog(run: Run) -> None:
    """Prints a row per preset: name, task, claim, and the published figures of its rows."""
    table = Table(title="presets", title_justify="left")
    for column in ("preset", "task", "claim", "published"):
        table.add_column(column, overflow="fold")
    for name in options("preset"):
        cfg = compose("config", overrides=[f"preset={name}"], return_hydra_config=True)
        paper = OmegaConf.to_container(cfg.paper, resolve=True)
        claim = (paper.get("claim") or {}).get("text", "") if "/" not in name else ""
        table.add_row(name, cfg.hydra.runtime.choices.task, claim, figures(paper.get("published")))
    Console().print(table)


def figures(published: dict[Any, Any] | None, label: str = "") -> str:
    """One line per published set-up: `96: mse 0.386, mae 0.405`."""
    if not published:
        return ""
    if any(isinstance(value, dict) for value in published.values()):
        return "\n".join(
            figures(value, f"{label}{key} ") for key, value in published.items() if isinstance(value, dict)
        )
    scores = (
        f"{name.removeprefix('test/')} {value:g}" for name, value in published.items() if name.startswith("test/")
    )
    return label + ", ".join(scores)

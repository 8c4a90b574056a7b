"""mode=catalog: every preset, from its YAML alone."""

from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from engine.compose import composed
from engine.explain import options
from engine.run import Run


def catalog(run: Run) -> None:
    """Prints every preset: name, paper, task, claim, and a line per published set-up."""
    console = Console(highlight=False)
    for name in options("preset"):
        cfg = composed([f"preset={name}"])
        paper = OmegaConf.to_container(cfg.paper, resolve=True)
        claim = paper.get("claim")
        console.print(f"[bold]{name}[/]  task={cfg.hydra.runtime.choices.task}  {paper['title']}", soft_wrap=True)
        if claim:
            console.print(f"  claim: {claim['text']}", soft_wrap=True)
        lines = published_lines(paper.get("published") or {}, paper.get("published_by"))
        if lines:
            console.print(f"  published ({paper.get('source')}):", soft_wrap=True)
        for line in lines:
            console.print(f"    {line}", soft_wrap=True)


def published_lines(published: dict[Any, Any], keys: str | list[str] | None) -> list[str]:
    """`data.horizon=96: mse 0.386, mae 0.405`, a line per set-up."""
    if not keys:
        scores = {k.removeprefix("test/"): v for k, v in published.items() if k.startswith("test/")}
        return [", ".join(f"{name} {value:g}" for name, value in scores.items())] if scores else []
    key, *rest = [keys] if isinstance(keys, str) else keys
    joint = " " if rest else ": "
    return [f"{key}={choice}{joint}{line}" for choice, row in published.items() for line in published_lines(row, rest)]

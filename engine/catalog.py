"""mode=catalog: every preset, from its YAML alone."""

from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from engine.compose import composed
from engine.errors import UserError, nearest
from engine.explain import options
from engine.published import as_list
from engine.run import Run


def catalog(run: Run) -> None:
    """Prints every preset, or those that have all of `tags`: name, paper, task, tags, claim, published set-ups.

    Raises:
        UserError: a tag that no preset has.
    """
    console = Console(highlight=False)
    wanted = {str(tag) for tag in as_list(run.plain()["tags"])}
    known: set[str] = set()
    for name in options("preset"):
        cfg = composed([f"preset={name}"])
        paper = OmegaConf.to_container(cfg.paper, resolve=True)
        words = tags(paper)
        known |= words
        if wanted <= words:
            show(console, name, cfg.hydra.runtime.choices.task, paper)
    for tag in sorted(wanted - known):
        raise UserError(f"tags={tag}: no preset has this tag; {nearest(tag, known)}")


def show(console: Console, name: str, task: str, paper: dict[str, Any]) -> None:
    """One preset."""
    claim = paper.get("claim")
    console.print(f"[bold]{name}[/]  task={task}  {paper['title']}", soft_wrap=True)
    if paper.get("tags"):
        stated = ", ".join(f"{kind} {' '.join(as_list(words))}" for kind, words in paper["tags"].items())
        console.print(f"  tags: {stated}", soft_wrap=True)
    if claim:
        console.print(f"  claim: {claim['text']}", soft_wrap=True)
    lines = published_lines(paper.get("published") or {}, paper.get("published_by"))
    if lines:
        console.print(f"  published ({paper.get('source')}):", soft_wrap=True)
    for line in lines:
        console.print(f"    {line}", soft_wrap=True)


def tags(paper: dict[str, Any]) -> set[str]:
    """The words of a preset's `paper.tags`, a mapping of kinds to a word or a list of them."""
    return {word for words in (paper.get("tags") or {}).values() for word in as_list(words)}


def published_lines(published: dict[Any, Any], keys: str | list[str] | None) -> list[str]:
    """`data.horizon=96: mse 0.386, mae 0.405`, a line per set-up."""
    if not keys:
        scores = {k.removeprefix("test/"): v for k, v in published.items() if k.startswith("test/")}
        return [", ".join(f"{name} {value:g}" for name, value in scores.items())] if scores else []
    key, *rest = [keys] if isinstance(keys, str) else keys
    joint = " " if rest else ": "
    return [f"{key}={choice}{joint}{line}" for choice, row in published.items() for line in published_lines(row, rest)]

"""One section of a page of benchmarks/, made anew while the others stay."""

from pathlib import Path


def replace(page: Path, title: str, lines: list[str]) -> None:
    """Writes `## title` with these lines into the page, in its old place or at the end."""
    heading = f"## {title}"
    text = page.read_text() if page.exists() else "# Published figures, reproduced\n"
    head, *sections = text.split("\n## ")
    kept = {f"## {section.partition(chr(10))[0]}": f"## {section}".rstrip() for section in sections}
    kept[heading] = "\n".join([heading, "", *lines]).rstrip()
    page.write_text("\n\n".join([head.rstrip(), *kept.values()]) + "\n")

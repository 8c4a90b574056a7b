"""The runs below a folder, as they lie on disk: results.json, and config.yaml as flat text. No YAML parser, no torch.

Files may come from anywhere: every value is taken only if it has the type that it should have.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SKIPPED_FOLDERS = {"figures", "wandb", "mlruns", "__pycache__"}
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".svg")


@dataclass(slots=True)
class Record:
    """One run folder.

    Args:
        name: the folder, relative to the path that the report reads.
        made: when results.json was written, seconds since 1970.
        choices: the chosen option of every group.
        settings: config.yaml's scalars by dotted key, as text.
        published: the paper's figures, numbers only; `changed`: what leaves the published set-up.
    """

    folder: str
    name: str
    made: float
    status: str
    mode: str
    choices: dict[str, str]
    overrides: list[str]
    seed: int | None
    metrics: dict[str, float]
    monitor: str | None
    direction: str | None
    published: dict[str, float]
    source: str
    changed: list[str]
    baselines: dict[str, dict[str, float]]
    train_seconds: float | None
    total_seconds: float | None
    memory_mb: float | None
    params: float | None
    flops: float | None
    energy: float | None
    code: str | None
    error: str
    figures: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The chosen task."""
        return self.choices.get("task") or "unknown task"

    @property
    def model(self) -> str:
        """The chosen model."""
        return self.choices.get("model") or "unknown"

    @property
    def data(self) -> str:
        """The chosen data set; with its file where it is the user's own."""
        name, path = self.choices.get("data") or "unknown", self.settings.get("data.path", "null")
        return name if path in ("null", "") else f"{name} ({os.path.basename(path)})"

    @property
    def preset(self) -> str:
        """The preset, or an empty text."""
        return self.choices.get("preset") or ""


def read_runs(path: Path) -> tuple[list[Record], list[tuple[str, str]]]:
    """Every run below `path`, by name; and (file, reason) of each results.json that is torn or somebody else's."""
    records, skipped = [], []
    for folder in run_folders(path):
        try:
            name = os.path.relpath(folder, path)
            records.append(read_record(folder, name if name != "." else os.path.basename(os.path.abspath(folder))))
        except (OSError, ValueError, RecursionError) as error:
            skipped.append((os.path.join(folder, "results.json"), reason(error)))
    return records, skipped


def reason(error: Exception) -> str:
    """Why a results.json was skipped, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "torn, or no JSON"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def run_folders(path: Path) -> list[str]:
    """Folders with a results.json, sorted; symbolic links to folders are not followed."""
    found, waiting = [], [os.fspath(path)]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # a folder that we may not look into, or that has just gone
            continue
        for entry in entries:
            if entry.name == "results.json" and entry.is_file():
                found.append(folder)
            elif entry.name[0] != "." and entry.name not in SKIPPED_FOLDERS and entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return sorted(found)


def read_record(folder: str, name: str) -> Record:
    """A run folder's record.

    Raises:
        OSError: results.json cannot be read.
        ValueError: it is no JSON, or not what a run writes.
    """
    with open(os.path.join(folder, "results.json"), encoding="utf-8") as file:
        raw, made = json.load(file), os.fstat(file.fileno()).st_mtime
    if not (isinstance(raw, dict) and isinstance(raw.get("status"), str) and isinstance(raw.get("choices"), dict)):
        raise ValueError("no status and choices in it")
    seconds, params, published = (mapping(raw.get(key)) for key in ("seconds", "params", "published"))
    return Record(
        folder=folder,
        name=name,
        made=made,
        status=raw["status"],
        mode=text(raw.get("mode")),
        choices={str(k): text_or_list(v) for k, v in raw["choices"].items() if v is not None},
        overrides=texts(raw.get("overrides")),
        seed=raw["seed"] if type(raw.get("seed")) is int else None,
        metrics=numbers(raw.get("metrics")),
        monitor=text(raw.get("monitor")) or None,
        direction=raw["direction"] if raw.get("direction") in ("min", "max") else None,
        published=numbers(published),
        source=text(published.get("source")),
        changed=texts(published.get("changed")),
        baselines={str(k): numbers(v) for k, v in mapping(raw.get("baselines")).items()},
        train_seconds=number(seconds.get("train")),
        total_seconds=number(seconds.get("total")),
        memory_mb=number(raw.get("peak_memory_mb")),
        params=number(params.get("total")),
        flops=number(raw.get("flops")),
        energy=next((number(v) for k, v in raw.items() if k.startswith("energy") and number(v) is not None), None),
        code=text(mapping(raw.get("versions")).get("code")) or None,
        error=text(raw.get("error")),
        figures=[f for f in texts(raw.get("figures")) if is_inside(f) and f.lower().endswith(IMAGES)],
        settings=read_settings(os.path.join(folder, "config.yaml")),
    )


def number(value: Any) -> float | None:
    """A finite number (that can be squared), or None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e150
    return value if usable else None


def numbers(value: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    return {str(k): v for k, v in mapping(value).items() if number(v) is not None}


def mapping(value: Any) -> dict[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """A text, or an empty one."""
    return value if isinstance(value, str) else ""


def text_or_list(value: Any) -> str:
    """A choice as text: `method=[a,b]` is a list."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def texts(value: Any) -> list[str]:
    """The texts of a list."""
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def is_inside(name: str) -> bool:
    """Whether a relative name stays inside its folder."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and not name.startswith("/") and ".." not in parts and ":" not in parts[0]


def read_settings(path: str) -> dict[str, str]:
    """config.yaml's scalars by dotted key; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return flatten(file.read())
    except OSError:
        return {}


def flatten(yaml: str) -> dict[str, str]:
    """Block YAML as OmegaConf writes it, by dotted key: `data.lookback` -> `96`; the items of a list joined by commas.

    A reader of its own because a YAML parser takes ten times as long, and values are only shown and compared.
    """
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    last = ""
    for line in yaml.splitlines():
        body = line.lstrip(" ")
        if body.startswith("- "):
            found[last] = f"{found[last]},{body[2:]}" if found.get(last) else body[2:]
            continue
        key, colon, value = body.partition(":")
        if not colon or (value and value[0] != " "):
            continue
        indent, value = len(line) - len(body), value.strip()
        while above and above[-1][0] >= indent:
            above.pop()
        last = f"{above[-1][1]}.{key}" if above else key
        if value:
            found[last] = value.strip("'\"")
        else:
            above.append((indent, last))
    found.pop("", None)
    return found

"""Checks of the composed config that need no heavy import: the mode's name and the type of every overridden value."""

import re
from numbers import Real
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from engine import CONF
from engine.errors import UserError, nearest
from engine.modes import MODES
from engine.packages import need_loggers

NEEDED = {"test": ("ckpt",), "predict": ("ckpt", "input", "output"), "report": ("path",), "sync": ("path",)}
"""Arguments without which a mode cannot begin."""

TRACKED = ("fit", "test", "claim")
"""Modes that open the loggers of the config."""

PATHS = ("ckpt", "input", "output", "path", "data.root", "data.path", "data.test_path")
"""Keys that hold a path, null by default."""

FREE = ("data.validation",)
"""Keys that take a number or a word."""

RERUN = ("never", "failed", "stale", "always")
"""What a sweep may be told to do again: see conf/config.yaml."""


def check(cfg: DictConfig, overrides: list[str]) -> None:
    """Raises UserError for an unknown mode or key, a missing argument of the mode or package of a logger, a value of
    the wrong type, or a name that a table of the data config does not have."""
    if cfg.mode not in MODES:
        raise UserError(f"mode={cfg.mode} is not a mode: {nearest(str(cfg.mode), MODES)}")
    for key in NEEDED.get(cfg.mode, ()):
        if cfg[key] is None:
            raise UserError(f"mode={cfg.mode} needs {key}=<path>")
    for key in cfg:
        if key not in known_keys():
            raise UserError(f"+{key}: nothing reads such a key; {nearest(key, known_keys())}")
    if not isinstance(cfg.seed, int):
        raise UserError(f"seed={cfg.seed}: expected a whole number, like 0")
    check_types(cfg, overrides)
    if cfg.rerun not in RERUN:
        raise UserError(f"rerun={cfg.rerun}: choose from {', '.join(RERUN)}")
    if not isinstance(cfg.retries, int) or cfg.retries < 0:
        raise UserError(f"retries={cfg.retries}: expected a whole number, 0 or more")
    if cfg.mode in TRACKED:
        need_loggers(cfg.logger)
    check_belongs(cfg)


def check_belongs(cfg: DictConfig) -> None:
    """Raises UserError for data or a model of another task than the config's, and for a name that a table lacks."""
    name = OmegaConf.select(cfg, "data.name")
    task, data = (str(OmegaConf.select(cfg, f"{group}._target_")).split(".")[:2] for group in ("task", "data"))
    if task[0] == data[0] == "tasks" and task != data:
        raise UserError(f"{name} is data of task={data[1]}, not of {task[1]}: say task={data[1]}, or choose other data")
    for group in ("data", "model"):
        try:
            OmegaConf.to_container(cfg[group], resolve=True)
        except InterpolationKeyError as error:
            place, key, there = missing_key(error)
            if group == "model" and place == "data":
                line = f"this model asks for data.{key}, which {name} lacks: it is a model of another task"
                raise UserError(line) from None
            raise UserError(f"{place}: there is no {key!r}; {nearest(key, there)}") from None


def missing_key(error: InterpolationKeyError) -> tuple[str, str, list[str]]:
    """`${data.source.sets.${data.name}.length}` with a name that is none: the place, the key, and what stands there."""
    wanted = re.match(r"Interpolation key '([\w.-]+)' not found", str(error))[1].split(".")
    node, passed = error.parent_node._get_root(), []
    while isinstance(node, DictConfig) and wanted[0] in node:
        node = node._get_node(wanted[0])
        passed.append(wanted.pop(0))
    return ".".join(passed), wanted[0], [str(key) for key in node] if isinstance(node, DictConfig) else []


def known_keys() -> set[str]:
    """The top-level keys of a config: those of config.yaml and the groups."""
    own = set(OmegaConf.load(CONF / "config.yaml")) - {"defaults"}
    return own | {path.name for path in CONF.iterdir() if path.is_dir()}


def is_group(key: str) -> bool:
    """Whether an override's key chooses an option of a config group."""
    return "/" in key or "@" in key or (CONF / key).is_dir()


def split_overrides(overrides: list[str]) -> tuple[list[str], list[str]]:
    """(group overrides, keys of the value overrides)."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    groups = [o.input_line for o in parsed if is_group(o.key_or_group)]
    values = [o.key_or_group for o in parsed if not is_group(o.key_or_group) and not o.is_add() and not o.is_delete()]
    return groups, values


def check_types(cfg: DictConfig, overrides: list[str]) -> None:
    """Each overridden value must have the type of the value that it replaces."""
    groups, keys = split_overrides(overrides)
    if not keys:
        return
    default = compose("config", overrides=groups)
    for key in keys:
        before = OmegaConf.select(default, key, throw_on_missing=False)
        value = OmegaConf.select(cfg, key)
        if key in FREE and not isinstance(value, DictConfig | ListConfig):
            continue
        if key in PATHS and isinstance(value, DictConfig | ListConfig):
            raise UserError(f"{key}={value}: expected one path")
        wanted = mismatch(before, value)
        if wanted:
            shown = OmegaConf.to_container(before) if isinstance(before, DictConfig | ListConfig) else before
            raise UserError(f"{key}={value}: expected {wanted}, like {shown}")


def mismatch(before: Any, value: Any) -> str | None:
    """What the value should have been, or None where it fits."""
    if before is None or value is None:
        return None
    kinds = [
        (bool, "true or false", isinstance(value, bool)),
        (int, "a whole number", isinstance(value, int) and not isinstance(value, bool)),
        (float, "a number", isinstance(value, Real) and not isinstance(value, bool)),
        (str, "one value", not isinstance(value, DictConfig | ListConfig)),
        (ListConfig, "a list", isinstance(value, ListConfig)),
        (DictConfig, "a mapping", isinstance(value, DictConfig)),
    ]
    return next((None if fits else text for kind, text, fits in kinds if isinstance(before, kind)), None)

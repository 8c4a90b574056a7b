"""Hydra's and OmegaConf's errors in one line that names the nearest valid names."""

import re
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from engine import CONF
from engine.check import is_group
from engine.errors import nearest, one_line

LISTED = ("method",)
"""Groups of which several options stack."""


def explain(error: BaseException, arguments: list[str]) -> str | None:
    """One line for an error in the command or its configs; None for an error that is not the user's."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return missing_option(error.missing_cfg_file, error.options or ())
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, and quote what the shell would change"
    if isinstance(error, ValueError | OmegaConfBaseException | HydraException) and (wrong := not_an_option(arguments)):
        return wrong
    if isinstance(error, ConfigCompositionException):
        return composition(error, arguments)
    if isinstance(error, OmegaConfBaseException | HydraException):
        return one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write or read{where}: {error.strerror or error}"
    return None


def missing_option(path: str, known: Sequence[str]) -> str:
    """`model/itransfomer` -> the nearest options of `model`; `known`: those of Hydra and its plugins."""
    group = "preset" if path.startswith("preset/") else path.rpartition("/")[0]
    name = path.removeprefix(group + "/")
    return f"{group}={name}: no such option; {nearest(name, {*options(group), *known})}"


def not_an_option(arguments: list[str]) -> str | None:
    """`model=3`, `model=[linear,dlinear]`: a group takes the name of one of its options, `method` a list of them."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        if equals and not key:
            return f"cannot read {argument!r}: write key=value"
        if not equals or not is_group(key):
            continue
        chosen = OverridesParser.create().parse_override(argument).value()
        if isinstance(chosen, list) and key not in LISTED:
            return f"{key}={value}: takes one option; to run each of them: -m {key}={','.join(map(str, chosen))}"
        for one in chosen.list if isinstance(chosen, ChoiceSweep) else [chosen]:
            if not isinstance(one, str | list):
                return f"{key}={one}: no such option; {nearest(str(one), options(key))}"
    return None


def options(group: str) -> list[str]:
    """The options of a group; rows of presets as `paper/row`. Files that start with an underscore are shared bases."""
    folder = CONF / group
    pattern = "**/*.yaml" if group == "preset" else "*.yaml"
    names = (str(p.relative_to(folder).with_suffix("")) for p in folder.glob(pattern))
    return sorted(n for n in names if not n.startswith("_"))


def known_groups() -> list[str]:
    """Every group of the conf tree, the most nested first; the folders of preset rows belong to `preset`."""
    folders = (str(p.relative_to(CONF)) for p in CONF.rglob("*") if p.is_dir())
    return sorted((f for f in folders if not f.startswith("preset/")), key=len, reverse=True)


def composition(error: ConfigCompositionException, arguments: list[str]) -> str:
    """Unknown keys and groups, by name; anything else in Hydra's first line."""
    text = f"{error} {error.__cause__ or ''}"
    found = re.search(r"[Cc]ould not (?:override|append|delete)[^']*'([^']+)'", text) or re.search(
        r"Key '([^']+)'", text
    )
    if not found:
        return one_line(str(error).splitlines()[0])
    key = found[1]
    if "value assigned" in text or "not assignable" in text or "could not be converted" in text:
        return one_line(str(error.__cause__ or error).splitlines()[0])
    return f"{key}: no such key or group; {nearest(key, valid_names(arguments))}"


def valid_names(arguments: list[str]) -> list[str]:
    """Groups, and the keys of the config that the command's (valid) group choices make."""
    groups = [a for a in arguments if "=" in a and is_group(a.split("=")[0].lstrip("+~")) and "," not in a]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = compose("config", overrides=groups)
        except HydraException:
            cfg = compose("config")
    return known_groups() + list(flatten(cfg))


def flatten(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key of a config."""
    keys = []
    for key in cfg:
        name = f"{prefix}{key}"
        keys.append(name)
        child = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            keys += flatten(child, f"{name}.")
    return keys

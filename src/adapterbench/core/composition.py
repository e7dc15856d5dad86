"""Composition of params.yaml from `conf/` with Hydra."""

import logging
import os
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as BadConfigError
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from adapterbench.core.config import PARAMS, read_params
from adapterbench.core.errors import one_line

log = logging.getLogger(__name__)

CONF = Path("conf")
SETTINGS = Path(".dvc/config")
"""DVC's settings, which name the root file of conf/ for `dvc exp run`."""
SHOWN = 5
"""Number of keys that a warning names."""


def conf_folder() -> Path:
    """The project's `conf/`; outside a project, the copy in the package."""
    return CONF if CONF.is_dir() else Path(str(files("adapterbench") / "conf"))


def compose_params(*overrides: str, name: str = "config") -> dict[str, Any]:
    """The parameters that `dvc exp run -S OVERRIDE ...` would write to params.yaml.

    Args:
        overrides: assignments in Hydra's grammar.
        name: root file of conf/, without its extension.
    """
    from hydra import compose, initialize_config_dir  # slow to import
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_folder().resolve()), version_base=None):
        config = compose(name, list(overrides))
    values: Any = OmegaConf.to_container(
        config, resolve=True
    )  # a dict, since `config` is a mapping
    return dict(values)


def warn_unsaved_edits() -> None:
    """Warn of edits to params.yaml that conf/ does not have: `dvc exp run` would drop them.

    Nothing is checked within an experiment, whose params.yaml has just been composed.
    """
    name = primary_config()
    if "DVC_EXP_NAME" in os.environ or not (CONF / f"{name}.yaml").is_file():
        return
    try:
        expected = compose_params(name=name)
    except Exception as error:  # Hydra and OmegaConf raise many types
        log.warning("%s/ cannot be composed (%s): correct it", CONF, one_line(error))
        return
    if keys := list(differing_keys(read_params(), expected)):
        more = ", ..." if len(keys) > SHOWN else ""
        log.warning(
            "%s differs from what %s/ composes, in %s%s. `dvc exp run` composes it again and drops "
            "these edits: to keep them, make them in %s/",
            *(PARAMS, CONF, ", ".join(keys[:SHOWN]), more, CONF),
        )


def primary_config() -> str:
    """The root file of conf/ for `dvc exp run`, without its extension."""
    settings = ConfigParser(interpolation=None)
    with suppress(OSError, UnicodeDecodeError, BadConfigError):
        settings.read_string(SETTINGS.read_text(encoding="utf-8"))
    return settings.get("hydra", "config_name", fallback="config")


def differing_keys(
    one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    """The dotted keys whose values differ, or that only one of the mappings has."""
    for key in dict.fromkeys([*one, *other]):
        dotted, pair = f"{prefix}{key}", [side.get(key, ...) for side in (one, other)]
        if all(isinstance(value, dict) for value in pair):
            yield from differing_keys(pair[0], pair[1], f"{dotted}.")
        elif pair[0] != pair[1]:
            yield dotted

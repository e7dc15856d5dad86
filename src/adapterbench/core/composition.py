"""`conf/`, of which Hydra composes params.yaml."""

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
"""DVC's own, which name the file of conf/ that `dvc exp run` begins with."""
SHOWN = 5
"""Keys that a warning names."""


def conf_folder() -> Path:
    """The project's `conf/`; outside a project, the one that comes with the package."""
    return CONF if CONF.is_dir() else Path(str(files("adapterbench") / "conf"))


def compose_params(*overrides: str, name: str = "config") -> dict[str, Any]:
    """What `dvc exp run -S OVERRIDE ...` would write to params.yaml.

    Args:
        overrides: in Hydra's grammar.
        name: of the file of conf/ to begin with.
    """
    from hydra import compose, initialize_config_dir  # for this alone
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_folder().resolve()), version_base=None):
        config = compose(name, list(overrides))
    values: Any = OmegaConf.to_container(config, resolve=True)  # of a mapping: a dict
    return dict(values)


def warn_unsaved_edits() -> None:
    """Log what was typed into params.yaml and not into conf/: `dvc exp run` would drop it.

    An experiment's own params.yaml has been composed, with what its command line sets.
    """
    name = primary()
    if "DVC_EXP_NAME" in os.environ or not (CONF / f"{name}.yaml").is_file():
        return
    try:
        expected = compose_params(name=name)
    except Exception as error:  # Hydra and OmegaConf raise many kinds
        log.warning("%s/ cannot be composed (%s): mend it", CONF, one_line(error))
        return
    if keys := list(differing(read_params(), expected)):
        more = ", ..." if len(keys) > SHOWN else ""
        log.warning(
            "%s is not what %s/ composes: %s%s differ. `dvc exp run` composes it anew and drops "
            "that: to keep it, write it into %s/",
            *(PARAMS, CONF, ", ".join(keys[:SHOWN]), more, CONF),
        )


def primary() -> str:
    """The file of conf/ that `dvc exp run` begins with."""
    settings = ConfigParser(interpolation=None)
    with suppress(OSError, UnicodeDecodeError, BadConfigError):
        settings.read_string(SETTINGS.read_text(encoding="utf-8"))
    return settings.get("hydra", "config_name", fallback="config")


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of which the values differ, or which one has alone."""
    for key in dict.fromkeys([*one, *other]):
        place, pair = f"{prefix}{key}", [side.get(key, ...) for side in (one, other)]
        if all(isinstance(value, dict) for value in pair):
            yield from differing(pair[0], pair[1], f"{place}.")
        elif pair[0] != pair[1]:
            yield place

"""Which numbers a command counts with: those of a params file, or of conf/ for a profile."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from adapterbench.core.composition import compose_params, conf_folder
from adapterbench.core.config import PARAMS, load_rows, read_params
from adapterbench.core.errors import UserError
from adapterbench.report.methods import in_order

if TYPE_CHECKING:
    from adapterbench.adapters.core.variant import Variant


def profiles() -> list[str]:
    """The names that `-S profile=NAME` takes, sorted."""
    return sorted(path.stem for path in (conf_folder() / "profile").glob("*.yaml"))


def check_profile(name: str) -> None:
    """Refuse a name that is no file of conf/profile.

    Raises:
        UserError: there is no such profile; the message lists those that exist.
    """
    if name not in profiles():
        raise UserError(f"no profile {name!r} (there are {', '.join(profiles())})")


@contextmanager
def settings(params: Path | None, profile: str | None) -> Iterator[Path]:
    """Yield the params file that the two options mean.

    A profile alone brings all that it composes, such as the variants that suit it; over a given
    file, what its own file says.

    Raises:
        UserError: there is no such profile, or a file is missing or is not a YAML mapping.
    """
    if profile is None:
        yield params or PARAMS
        return
    check_profile(profile)
    with TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS.name
        if params is None:
            write(path, compose_params(f"profile={profile}"))
        else:
            own = read_params(conf_folder() / "profile" / f"{profile}.yaml")
            write(path, overlay(read_params(params), own))
        yield path


def write(path: Path, params: dict[str, Any]) -> None:
    """Write a params file; JSON is YAML."""
    path.write_text(json.dumps(params, ensure_ascii=False), encoding="utf-8")


def overlay(params: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`params` with the fields that a file of conf/ sets; its choice of other files is left out."""
    sections = {name: fields for name, fields in own.items() if name != "defaults"}
    for name in sections:
        if not isinstance(params.get(name, {}), dict):
            raise UserError(f"the section {name!r} of the parameter file must be a mapping")
    return params | {name: {**params.get(name, {}), **fields} for name, fields in sections.items()}


def variants(params: Path) -> "dict[str, Variant]":
    """The rows of `variants:` by name, in the order of the table.

    Raises:
        UserError: there is none, or one is bad.
    """
    from adapterbench.adapters.core.variant import parse_variant  # imports torch: seconds

    rows = load_rows(params)
    if not rows:
        raise UserError(f"{params} has no variant: add a row under `variants:`")
    return {name: parse_variant(rows[name], f"variants.{name}") for name in in_order(list(rows))}

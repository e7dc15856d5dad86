"""The parameters that a command uses: a params file, or what conf/ composes for a profile."""

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
    """The names of all profiles, sorted."""
    return sorted(path.stem for path in (conf_folder() / "profile").glob("*.yaml"))


def check_profile(name: str) -> None:
    """Check that a profile exists.

    Raises:
        UserError: it does not; the message lists those that do.
    """
    if name not in profiles():
        raise UserError(f"no profile {name!r} (there are {', '.join(profiles())})")


@contextmanager
def settings(params: Path | None, profile: str | None) -> Iterator[Path]:
    """Yield the params file selected by `--params` and `--profile`.

    A profile alone gives everything that it composes, such as its variants; with a params file,
    the fields of the profile's own file override it.

    Raises:
        UserError: the profile does not exist, or a file is missing or is not a YAML mapping.
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
            overrides = read_params(conf_folder() / "profile" / f"{profile}.yaml")
            write(path, overlay(read_params(params), overrides))
        yield path


def write(path: Path, params: dict[str, Any]) -> None:
    """Write a params file as JSON, a subset of YAML."""
    path.write_text(json.dumps(params, ensure_ascii=False), encoding="utf-8")


def overlay(params: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`params` with the fields that a file of conf/ sets; its `defaults` list is ignored."""
    sections = {name: fields for name, fields in overrides.items() if name != "defaults"}
    for name in sections:
        if not isinstance(params.get(name, {}), dict):
            raise UserError(f"the section {name!r} of the parameter file must be a mapping")
    return params | {name: {**params.get(name, {}), **fields} for name, fields in sections.items()}


def variants(params: Path) -> "dict[str, Variant]":
    """The rows of `variants:` by name, in the order of the table.

    Raises:
        UserError: there is no row, or a row is invalid.
    """
    from adapterbench.adapters.core.variant import parse_variant  # imports torch: slow

    rows = load_rows(params)
    if not rows:
        raise UserError(f"{params} has no variant: add a row under `variants:`")
    return {name: parse_variant(rows[name], f"variants.{name}") for name in in_order(list(rows))}

"""The options that commands share, and how they treat files."""

from pathlib import Path
from typing import Annotated

from typer import Option

from adapterbench.core.errors import UserError

Params = Annotated[
    Path | None,
    Option(help="Parameter file, with rows under `variants:` (default: params.yaml)."),
]
Profile = Annotated[
    str | None,
    Option(
        help="A file of conf/profile, such as sd15, whose settings count (without --params, all "
        "that `dvc exp run -S profile=NAME` composes) and whose backbone the adapters stand on."
    ),
]
Backbone = Annotated[
    Path | None,
    Option(
        help="Folder in diffusers layout that the adapters stand on (default: the profile's, "
        "else what is fetched, data/backbone)."
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON: plain numbers, no rounding.")]


def require_absent(path: Path) -> Path:
    """Return `path` if nothing exists there: commands overwrite no files.

    Raises:
        UserError: `path` exists.
    """
    if path.exists():
        raise UserError(f"{path} is there already: choose another name, or remove it")
    return path

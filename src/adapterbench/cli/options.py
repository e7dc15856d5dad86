"""Options that commands share."""

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
        help="A profile of conf/profile, such as sd15: use its settings (without --params, all "
        "that `dvc exp run -S profile=NAME` composes) and its backbone."
    ),
]
Backbone = Annotated[
    Path | None,
    Option(
        help="Folder of the backbone in diffusers layout (default: the profile's, else "
        "data/backbone)."
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON with unrounded numbers.")]


def require_absent(path: Path) -> Path:
    """Return `path` if nothing exists there: commands overwrite no files.

    Raises:
        UserError: `path` exists.
    """
    if path.exists():
        raise UserError(f"{path} exists already: choose another name, or remove it")
    return path

"""A model that is already on this machine, in diffusers layout."""

import os
import shutil
from pathlib import Path

from adapterbench.config import BackboneParams
from adapterbench.errors import UserError


def fetch(params: BackboneParams, out: Path) -> None:
    """Bring the folder `params.path`, hard-linked where the file system allows it.

    Raises:
        UserError: it is not a folder in diffusers layout, or a revision is asked for.
    """
    if params.revision is not None:
        raise UserError("backbone.revision must be null: a local folder is taken as it is")
    folder = Path(params.path).expanduser()
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} has no model_index.json: set backbone.path to a diffusers folder"
        )
    shutil.copytree(folder, out, copy_function=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    """A hard link to the file itself (the hub's cache holds symbolic links), or a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)

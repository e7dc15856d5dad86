"""A model that is already on this machine, in diffusers layout."""

import shutil
from pathlib import Path

from adapterbench.config import BackboneParams
from adapterbench.errors import UserError
from adapterbench.files import link_or_copy


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

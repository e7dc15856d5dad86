"""A model or a LoRA that is already on this machine, in diffusers layout."""

import shutil
from pathlib import Path

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import link_or_copy


def fetch(params: BackboneParams, out: Path) -> None:
    """Bring the folder or the LoRA file `params.path`, hard-linked where that can be done.

    Raises:
        UserError: it is neither a folder in diffusers layout nor a LoRA, or a revision is asked
            for.
    """
    if params.revision is not None:
        raise UserError("backbone.revision must be null: a local folder is taken as it is")
    path = Path(params.path).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        out.mkdir(parents=True)
        link_or_copy(path, out / path.name)
    elif (path / "model_index.json").is_file():
        shutil.copytree(path, out, copy_function=link_or_copy)
    else:
        raise UserError(f"{path} has no model_index.json: set backbone.path to a diffusers folder")

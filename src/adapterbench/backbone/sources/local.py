"""A model that is already on this machine, in the layout of diffusers or timm, or a LoRA."""

import shutil
from pathlib import Path

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import link_or_copy

CONFIGS = ("model_index.json", "config.json")
"""What says which model a folder holds: of diffusers, of timm."""


def fetch(params: BackboneParams, out: Path) -> None:
    """Bring the folder or the LoRA file `params.path`, hard-linked where that can be done.

    Raises:
        UserError: it is neither a folder in one of these layouts nor a LoRA, or a revision is
            asked for.
    """
    if params.revision is not None:
        raise UserError("backbone.revision must be null: a local folder is taken as it is")
    path = Path(params.path).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        out.mkdir(parents=True)
        link_or_copy(path, out / path.name)
    elif any((path / name).is_file() for name in CONFIGS):
        shutil.copytree(path, out, copy_function=link_or_copy)
    else:
        raise UserError(
            f"{path} has no {' or '.join(CONFIGS)}: set backbone.path to a folder that diffusers "
            "or timm wrote"
        )

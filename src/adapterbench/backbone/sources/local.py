"""A local model in the layout of diffusers or timm, or a local LoRA."""

import shutil
from pathlib import Path

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import link_or_copy

CONFIGS = ("model_index.json", "config.json")
"""Configuration files by which a folder is a model: of diffusers, of timm."""


def fetch(params: BackboneParams, out: Path) -> None:
    """Copy the folder or the LoRA file `params.path`, by hard links where possible.

    Raises:
        UserError: it is neither a folder in one of these layouts nor a LoRA, or a revision is
            given.
    """
    if params.revision is not None:
        raise UserError("backbone.revision must be null: a local folder is used as it is")
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

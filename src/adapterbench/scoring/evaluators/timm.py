"""The timm network of stage `neutral_evaluator`: pooled features of images; no text encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float
from PIL import Image
from timm.models import resolve_model_input_args
from torch import Tensor

from adapterbench.core.config import Count, Section
from adapterbench.core.errors import InputError, one_line
from adapterbench.formats.image import to_array
from adapterbench.runs.processes import process_state
from adapterbench.scoring.evaluator import Evaluator, Folders

FILES = ("config.json", "model.safetensors")


class Params(Section):
    """Input resolution and batch size."""

    resolution: Count
    """Side length to which an image is scaled (bicubic), pixels."""
    batch_size: Count
    """Images per forward pass; on a CPU small batches are faster: activations stay in its cache."""


def load(params: Params, folders: Folders) -> Evaluator:
    """Load the network onto this process's device.

    Raises:
        UserError: see `load_network`.
    """
    return evaluator(params, folders.evaluator)


def evaluator(params: Params, folder: Path) -> Evaluator:
    """The network in a folder with timm's `config.json` and `model.safetensors`.

    Raises:
        UserError: see `load_network`.
    """
    model = load_network(folder, params.resolution)
    model.to(process_state().device, memory_format=torch.channels_last)
    try:
        mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))
        embeds = embedder(model, params.resolution, mean, std)
        if not embeds([Image.new("RGB", (8, 8))]).isfinite().all():
            raise ValueError("its features are not finite")
    except Exception as error:  # a configuration may load and still not run
        raise damaged(folder, error) from error
    return Evaluator(embeds, None, params.batch_size)


def load_network(folder: Path, resolution: int) -> Any:
    """The frozen network without its classifier: normalised images -> pooled features `(B, D)`.

    Raises:
        UserError: a file is missing or damaged, or the weights are of another architecture than
            `config.json` names.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder / missing[0]} is missing", folder)
    try:
        # with the classifier, so that the weights are loaded strictly
        size = {"img_size": resolution}
        model: Any = timm.create_model(  # a class of its own for each architecture
            pretrained=True, **resolve_model_input_args(f"local-dir:{folder}", size)
        )
    except Exception as error:  # timm raises many kinds
        raise damaged(folder, error) from error
    model.reset_classifier(0)
    return model.requires_grad_(False).eval()


def damaged(folder: Path, error: Exception) -> InputError:
    """The error for a network that cannot be loaded or used."""
    return InputError(f"cannot load {folder} ({one_line(error)})", folder)


def embedder(
    model: Any, side: int, mean: Float[Tensor, " channels"], std: Float[Tensor, " channels"]
) -> Callable[[list[Image.Image]], Tensor]:
    """Images -> pooled features `(B, D)`; `mean` and `std` `(3,)` are of pixel values in [0, 1]."""
    scale, shift = std[:, None, None], mean[:, None, None]

    @torch.no_grad()
    def image_embeds(images: list[Image.Image]) -> Float[Tensor, "batch dim"]:
        scaled = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        pixels = torch.from_numpy(np.stack([to_array(image) for image in scaled])) / 255
        normal = ((pixels - shift) / scale).contiguous(memory_format=torch.channels_last)
        features: Tensor = model(normal.to(process_state().device)).cpu()
        return features

    return image_embeds

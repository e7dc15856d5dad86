"""Masks for image prompts, from PIL images to the tensor of diffusers' layers."""

from collections.abc import Sequence

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from torch import Tensor

from adapterbench.core.errors import UserError

Masks = Image.Image | Sequence[Image.Image] | Tensor
"""Images, white where the image prompt acts, or diffusers' own tensor `(1, n, H, W)`."""


def mask_tensor(masks: Masks) -> Tensor:
    """Black and white `(1, n, H, W)`, by diffusers' `IPAdapterMaskProcessor`.

    Raises:
        UserError: they are not PIL images of one size.
    """
    if isinstance(masks, Tensor):
        return masks
    images = list(masks) if isinstance(masks, Sequence) else [masks]
    if not images or not all(isinstance(image, Image.Image) for image in images):
        raise UserError("masks: give a PIL image, white where the image prompt counts, or a list")
    if len(sizes := sorted({image.size for image in images})) > 1:
        raise UserError(
            f"masks are of {len(sizes)} sizes ({sizes[0]}, {sizes[1]}): draw all in the image's"
        )
    grey = [image.convert("L") for image in images]
    return torch.cat([*IPAdapterMaskProcessor().preprocess(grey)])[None]

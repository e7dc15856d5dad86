"""Regions of the image in which image prompts act: diffusers' `ip_adapter_masks`."""

from collections.abc import Sequence
from typing import Any

from diffusers.image_processor import IPAdapterMaskProcessor
from jaxtyping import Float
from torch import Tensor

from adapterbench.core.errors import UserError

LATENT = 8
"""Image pixels per side of a latent pixel; the tolerance of a mask's proportions."""


def regions(
    masks: Float[Tensor, "1 prompts height width"], positions: int
) -> Float[Tensor, "prompts {positions}"]:
    """Masks `(1, n, H, W)` at the N positions of a layer `(n, N)`, scaled as in diffusers."""
    scaled: Tensor = IPAdapterMaskProcessor.downsample(masks[0], masks.shape[1], positions, 1)
    return scaled[..., 0]


def checked_masks(
    masks: Any,
    image_embeds: Sequence[Float[Tensor, "batch _ ..."]],
    latents: Float[Tensor, "batch channels height width"],
) -> list[Float[Tensor, "1 _ _ _"] | None]:
    """The mask tensor of each adapter, `(1, n, H, W)`, or None.

    Args:
        masks: such a list, or diffusers' tensor `(adapters, 1, H, W)` for adapters with one image
            prompt each.
        image_embeds: of each adapter, `(B, n, ..)`.
        latents: input of the UNet `(B, C, h, w)`.

    Raises:
        UserError: they have another type, number or shape.
    """
    if masks is None:
        return [None] * len(image_embeds)
    listed = list(masks[:, None]) if isinstance(masks, Tensor) else masks
    if not isinstance(listed, list | tuple) or len(listed) != len(image_embeds):
        count = f"{len(listed)}" if isinstance(listed, list | tuple) else f"{type(masks).__name__}"
        raise UserError(
            f"ip_adapter_masks: got {count}, the UNet has {len(image_embeds)} adapter(s): give a "
            "list with a tensor (1, images, height, width), or None, for each"
        )
    for number, (mask, embeds) in enumerate(zip(listed, image_embeds, strict=True)):
        if mask is not None:
            check_mask(mask, f"ip_adapter_masks[{number}]", embeds.shape[1], latents)
    return list(listed)


def check_mask(
    mask: Any, name: str, images: int, latents: Float[Tensor, "batch channels height width"]
) -> None:
    """Check that a mask has `images` regions and the proportions of the latents.

    Raises:
        UserError: it has not.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 4 or len(mask) != 1:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(
            f"{name} is {shape}, not a tensor (1, images, height, width): make it with diffusers' "
            "IPAdapterMaskProcessor, or give images to image_prompt(image, masks=...)"
        )
    if mask.shape[1] != images:
        raise UserError(
            f"{name} has {mask.shape[1]} mask(s) for {images} image prompt(s): give one for each"
        )
    (height, width), (h, w) = mask.shape[2:], latents.shape[2:]
    if abs(height * w - width * h) >= LATENT * max(h, w):
        raise UserError(
            f"{name} is {height} x {width} pixels, the image {LATENT * h} x {LATENT * w} (height x "
            "width): draw the mask in the image's proportions"
        )

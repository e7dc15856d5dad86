"""Where in the image an image prompt counts: diffusers' `ip_adapter_masks`."""

from collections.abc import Sequence
from typing import Any

from diffusers.image_processor import IPAdapterMaskProcessor
from jaxtyping import Float
from torch import Tensor

from adapterbench.core.errors import UserError

LATENT = 8
"""Image pixels along a side of a latent pixel: what a mask's sides are rounded to."""


def regions(
    masks: Float[Tensor, "1 prompts height width"], positions: int
) -> Float[Tensor, "prompts {positions}"]:
    """Masks `(1, n, H, W)` at the N positions of a layer `(n, N)`, as diffusers scales them."""
    scaled: Tensor = IPAdapterMaskProcessor.downsample(masks[0], masks.shape[1], positions, 1)
    return scaled[..., 0]


def checked_masks(
    masks: Any,
    image_embeds: Sequence[Float[Tensor, "batch _ ..."]],
    latents: Float[Tensor, "batch channels height width"],
) -> list[Float[Tensor, "1 _ _ _"] | None]:
    """The masks of each adapter, `(1, n, H, W)`, or None for one without.

    Args:
        masks: as diffusers takes them: such a list, or `(adapters, 1, H, W)` of adapters with one
            image prompt each.
        image_embeds: of each adapter, `(B, n, ..)`.
        latents: what the UNet denoises `(B, C, h, w)`.

    Raises:
        UserError: they are of another kind, count or shape.
    """
    if masks is None:
        return [None] * len(image_embeds)
    found = list(masks[:, None]) if isinstance(masks, Tensor) else masks
    if not isinstance(found, list | tuple) or len(found) != len(image_embeds):
        count = f"{len(found)}" if isinstance(found, list | tuple) else f"{type(masks).__name__}"
        raise UserError(
            f"ip_adapter_masks: got {count}, the UNet has {len(image_embeds)} adapter(s): give a "
            "list with a tensor (1, images, height, width), or None, for each"
        )
    for number, (mask, embeds) in enumerate(zip(found, image_embeds, strict=True)):
        if mask is not None:
            check_mask(mask, f"ip_adapter_masks[{number}]", embeds.shape[1], latents)
    return list(found)


def check_mask(
    mask: Any, name: str, images: int, latents: Float[Tensor, "batch channels height width"]
) -> None:
    """Refuse a mask that is not of `images` regions in the proportions of the latents.

    Raises:
        UserError: it is not.
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

"""What an adapter reads of pictures: a CLIP's embeddings, or its features of their patches."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import Clip

MAX_TILES = 16
"""Of an image."""


def padded(image: Image.Image) -> list[Image.Image]:
    """The whole image in a square, the rest white."""
    side = max(image.size)
    return [ImageOps.pad(image, (side, side), color="white")]


def tiles(image: Image.Image) -> list[Image.Image]:
    """The fewest squares that cover the image, evenly spaced along its longer side.

    Raises:
        UserError: they are more than `MAX_TILES`.
    """
    short, long = sorted(image.size)
    count = -(-long // short)
    if count > MAX_TILES:
        raise UserError(
            f"an image of {image.width} x {image.height} pixels would be {count} tiles, more than "
            f"{MAX_TILES}: crop it, or choose another fit"
        )
    starts = [round(i * (long - short) / max(count - 1, 1)) for i in range(count)]
    wide = image.width > image.height
    corners = [(start, 0) if wide else (0, start) for start in starts]
    return [image.crop((x, y, x + short, y + short)) for x, y in corners]


FITS: dict[str, Callable[[Image.Image], list[Image.Image]]] = {
    "crop": lambda image: [image],  # the image encoder's own preprocessing cuts out the centre
    "pad": padded,
    "tiles": tiles,
}
"""How an image that is not square is read: as which images, of which the mean counts."""


def unconditional_embeds(embeds: Tensor) -> Tensor:
    """The unconditional image prompt of adapters that read embeddings, as often as `embeds`.

    Zeros (IP-Adapter, section 3.3). That of adapters that read patches takes the image encoder:
    see `image_prompts`.
    """
    return torch.zeros_like(embeds)


@torch.no_grad()
def image_prompts(
    clip: Clip, images: list[Any], patches: bool, fit: str = "crop"
) -> tuple[Tensor, Tensor]:
    """PIL images as image prompts `(N, c)`, or `(N, S, c)`; and the unconditional image prompt.

    That is the zero embedding `(1, c)`, but the *features* of a zero image `(1, S, c)`: so
    IP-Adapter and its "plus" were trained.

    Args:
        clip: the image encoder.
        images: RGB.
        patches: whether to give the features of patches.
        fit: of `FITS`.

    Raises:
        UserError: patches are asked of an image encoder that has none, or see `tiles`.
    """
    parts = [FITS[fit](image) for image in images]
    flat = [part for several in parts for part in several]
    if patches:
        pixels = torch.stack([clip.preprocess(image) for image in flat])
        features = patch_features(clip, torch.cat([pixels, torch.zeros_like(pixels[:1])]))
        embeds, unconditional = features[:-1], features[-1:]
    else:
        embeds = clip.image_embeds(flat)
        unconditional = unconditional_embeds(embeds[:1])
    if len(flat) > len(images):
        embeds = torch.stack([part.mean(dim=0) for part in embeds.split([*map(len, parts)])])
    return embeds, unconditional


def patch_features(clip: Clip, pixels: Tensor) -> Tensor:
    """The last hidden layer but one, class token first: `(N, 3, H, W)` to `(N, S, c)`.

    Raises:
        UserError: see `image_prompts`.
    """
    from open_clip.transformer import VisionTransformer

    visual = clip.model.visual
    if not isinstance(visual, VisionTransformer):
        raise UserError(
            f"the image encoder ({type(visual).__name__}) has no patch features to read: "
            "name the vision transformer that the adapter was trained with"
        )
    found = visual.forward_intermediates(
        pixels.to(clip.device),
        indices=[len(visual.transformer.resblocks) - 2],
        stop_early=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    parts = [found[f"image_intermediates{kind}"][0] for kind in ("_prefix", "")]
    return torch.cat(parts, dim=1).cpu()

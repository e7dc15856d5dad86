"""Image prompts: the CLIP embeddings or patch features that an adapter reads."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import Clip

MAX_TILES = 16
"""Most tiles per image."""


def padded(image: Image.Image) -> list[Image.Image]:
    """The image padded with white to a square."""
    side = max(image.size)
    return [ImageOps.pad(image, (side, side), color="white")]


def tiles(image: Image.Image) -> list[Image.Image]:
    """The fewest squares that cover the image, evenly spaced along its longer side.

    Raises:
        UserError: there would be more than `MAX_TILES`.
    """
    short, long = sorted(image.size)
    count = -(-long // short)
    if count > MAX_TILES:
        raise UserError(
            f"an image of {image.width} x {image.height} pixels gives {count} tiles, more than "
            f"{MAX_TILES}: crop it, or choose another fit"
        )
    starts = [round(i * (long - short) / max(count - 1, 1)) for i in range(count)]
    wide = image.width > image.height
    corners = [(start, 0) if wide else (0, start) for start in starts]
    return [image.crop((x, y, x + short, y + short)) for x, y in corners]


FITS: dict[str, Callable[[Image.Image], list[Image.Image]]] = {
    "crop": lambda image: [image],  # the image encoder's preprocessing crops the centre
    "pad": padded,
    "tiles": tiles,
}
"""Ways to read an image that is not square: the images whose mean embedding is used."""


def unconditional_embeds(embeds: Tensor) -> Tensor:
    """The unconditional embedding, in the shape of `embeds`: zeros (IP-Adapter, section 3.3).

    For adapters that read patches see `image_prompts`.
    """
    return torch.zeros_like(embeds)


@torch.no_grad()
def image_prompts(
    clip: Clip, images: list[Any], patches: bool, fit: str = "crop"
) -> tuple[Tensor, Tensor]:
    """Encode PIL images as image prompts `(N, c)` or `(N, S, c)`, and the unconditional prompt.

    The latter is the zero embedding `(1, c)`, or the *features* of a zero image `(1, S, c)`, as in
    the training of IP-Adapter and IP-Adapter Plus.

    Args:
        clip: the image encoder.
        images: RGB.
        patches: whether to return patch features.
        fit: a key of `FITS`.

    Raises:
        UserError: the image encoder has no patch features, or see `tiles`.
    """
    views = [FITS[fit](image) for image in images]
    pixels = torch.stack([clip.preprocess(view) for several in views for view in several])
    if patches:
        features = patch_features(clip, torch.cat([pixels, torch.zeros_like(pixels[:1])]))
        embeds, unconditional = features[:-1], features[-1:]
    else:
        embeds = clip.pixel_embeds(pixels)
        unconditional = unconditional_embeds(embeds[:1])
    return averaged(embeds, [*map(len, views)]), unconditional


def averaged(embeds: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean over the views of each image.

    Args:
        embeds: of the views of all images, one image after the other, `(V, ..)`.
        counts: views of each of N images, V in all.

    Returns:
        `(N, ..)`; the argument itself where every image has one view.
    """
    if len(embeds) == len(counts):
        return embeds
    return torch.stack([views.mean(dim=0) for views in embeds.split([*counts])])


@torch.no_grad()
def patch_features(clip: Clip, pixels: Tensor) -> Tensor:
    """Features of the penultimate layer, class token first: `(N, 3, H, W)` to `(N, S, c)`.

    Raises:
        UserError: see `image_prompts`.
    """
    from open_clip.transformer import VisionTransformer

    visual = clip.model.visual
    if not isinstance(visual, VisionTransformer):
        raise UserError(
            f"the image encoder ({type(visual).__name__}) has no patch features: "
            "name the vision transformer that the adapter was trained with"
        )
    outputs = visual.forward_intermediates(
        pixels.to(clip.device),
        indices=[len(visual.transformer.resblocks) - 2],
        stop_early=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    parts = [outputs[f"image_intermediates{kind}"][0] for kind in ("_prefix", "")]
    return torch.cat(parts, dim=1).cpu()

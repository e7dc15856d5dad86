"""What an adapter reads of pictures: a CLIP's embeddings, or its features of their patches."""

from typing import Any

import torch
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import Clip


def unconditional_embeds(embeds: Tensor) -> Tensor:
    """The unconditional image prompt of adapters that read embeddings, as often as `embeds`.

    Zeros (IP-Adapter, section 3.3). That of adapters that read patches takes the image encoder:
    see `image_prompts`.
    """
    return torch.zeros_like(embeds)


@torch.no_grad()
def image_prompts(clip: Clip, images: list[Any], patches: bool) -> tuple[Tensor, Tensor]:
    """PIL images as image prompts `(N, c)`, or `(N, S, c)`; and the unconditional image prompt.

    That is the zero embedding `(1, c)`, but the *features* of a zero image `(1, S, c)`: so
    IP-Adapter and its "plus" were trained.

    Raises:
        UserError: patches are asked of an image encoder that has none.
    """
    if not patches:
        embeds = clip.image_embeds(images)
        return embeds, unconditional_embeds(embeds[:1])
    pixels = torch.stack([clip.preprocess(image) for image in images])
    features = patch_features(clip, torch.cat([pixels, torch.zeros_like(pixels[:1])]))
    return features[:-1], features[-1:]


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

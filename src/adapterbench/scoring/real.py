"""Real images that stand in the table beside generated ones: what a score is worth at its ends."""

from collections.abc import Sequence
from typing import Any

import torch
from more_itertools import chunked
from PIL import Image

from adapterbench.runs.processes import process_state

BATCH = 4
"""Images that go through the VAE at a time: its activations are large."""


def real_images(references: Sequence[Image.Image], vae: Any) -> dict[str, list[Image.Image]]:
    """An image an item by name of the row.

    `reference`: the item's own. `vae`: that through the VAE, the most that any adapter over this
    base can reach. `reference_16px`: that shrunk to 16 pixels and back. `other_item`: the next
    item's, which shows how alike any two real images are.
    """
    return {
        "reference": list(references),
        "vae": reconstruct(references, vae),
        "reference_16px": [blurred(image) for image in references],
        "other_item": [*references[1:], references[0]],
    }


@torch.no_grad()
def reconstruct(images: Sequence[Image.Image], vae: Any) -> list[Image.Image]:
    """Images encoded and decoded by an AutoencoderKL, as a pipeline would show them."""
    from diffusers.image_processor import VaeImageProcessor  # takes seconds; few stages need it

    processor = VaeImageProcessor(do_resize=False)
    made: list[Image.Image] = []
    for part in chunked(images, BATCH):
        pixels = processor.preprocess(part).to(process_state().device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        made += processor.postprocess(decoded.cpu(), output_type="pil")
    return made


def blurred(image: Image.Image, side: int = 16) -> Image.Image:
    """An image shrunk to `side` pixels and enlarged again."""
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)

"""Real images scored in place of generated ones: floor and ceilings of each score."""

from collections.abc import Sequence
from typing import Any

import torch
from more_itertools import chunked
from PIL import Image

from adapterbench.runs.processes import process_state

BATCH = 4
"""Images per VAE forward pass: its activations are large."""


def real_images(references: Sequence[Image.Image], vae: Any) -> dict[str, list[Image.Image]]:
    """One image per item, by name of the row.

    `reference`: the item's reference image. `vae`: its VAE reconstruction, a ceiling for every
    adapter over this base. `reference_16px`: the reference shrunk to 16 pixels and enlarged again.
    `other_item`: the next item's reference, the similarity of two unrelated real images.
    """
    return {
        "reference": list(references),
        "vae": reconstruct(references, vae),
        "reference_16px": [blurred(image) for image in references],
        "other_item": [*references[1:], references[0]],
    }


@torch.no_grad()
def reconstruct(images: Sequence[Image.Image], vae: Any) -> list[Image.Image]:
    """Images encoded and decoded by an `AutoencoderKL`, with a pipeline's post-processing."""
    from diffusers.image_processor import VaeImageProcessor  # slow import; few stages need it

    processor = VaeImageProcessor(do_resize=False)
    restored: list[Image.Image] = []
    for part in chunked(images, BATCH):
        pixels = processor.preprocess(part).to(process_state().device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        restored += processor.postprocess(decoded.cpu(), output_type="pil")
    return restored


def blurred(image: Image.Image, side: int = 16) -> Image.Image:
    """An image shrunk to `side` pixels and enlarged again."""
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)

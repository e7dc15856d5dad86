"""Generate images with the assembled pipeline from text, and grids of images."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import Count, Section
from adapterbench.formats.image import to_array
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.sampling.items import choose_items, noise


class DrawParams(Section):
    """Sampling of the images that are measured."""

    items: Count
    """Number of captions, of different concepts, to generate images from."""
    steps: Count
    """DPM-Solver++ steps."""
    guidance_scale: Annotated[float, Field(ge=1)]
    """Classifier-free guidance weight."""
    batch_size: Count
    """Images per batch."""
    seed: int
    """Seed of the choice of items and of the noise."""


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load the assembled pipeline with DPM-Solver++, fp32."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder,
        safety_checker=None,
        torch_dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def choose(images: CaptionedImages, count: int, seed: int) -> list[int]:
    """Indices of `count` images; every concept occurs once before any occurs twice."""
    rows = [
        {"key": key, "concept": concept}
        for key, concept in zip(images.keys, images.concepts, strict=True)
    ]
    return choose_items(rows, count, seed)


def draw(pipe: StableDiffusionPipeline, images: CaptionedImages, params: DrawParams) -> Tensor:
    """Generate an image from each first caption: uint8 `(N, 3, H, W)`."""
    config = pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    made: list[Image.Image] = []
    for start in tqdm(range(0, len(images), params.batch_size), desc="draw"):
        part = range(start, min(start + params.batch_size, len(images)))
        latents = [noise(images.keys[i], 0, params.seed, shape) for i in part]
        made += pipe(
            [images.captions[i][0] for i in part],
            latents=torch.stack(latents),
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
        ).images
    return torch.from_numpy(np.stack([to_array(image) for image in made]))


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """uint8 `(N, 3, H, W)` -> PIL images."""
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]


def grid(*layers: Tensor, columns: int = 16, zoom: int = 2) -> Image.Image:
    """Images in lines of `columns`; each line has one row per layer, one above the other.

    The last line is filled with white.

    Args:
        layers: uint8 `(N, 3, H, W)` each, such as originals and reconstructions.
        zoom: factor by which the sheet is enlarged.
    """
    columns = min(columns, len(layers[0]))
    missing = -len(layers[0]) % columns
    layers = tuple(F.pad(rows, (0, 0, 0, 0, 0, 0, 0, missing), value=255) for rows in layers)
    lines = [
        torch.cat([torch.cat(list(rows[at : at + columns]), dim=2) for rows in layers], 1)
        for at in range(0, len(layers[0]), columns)
    ]
    sheet = Image.fromarray(torch.cat(lines, dim=1).permute(1, 2, 0).numpy())
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.BICUBIC)

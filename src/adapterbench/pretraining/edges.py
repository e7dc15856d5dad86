"""Measure how well the ControlNet's images follow their edge maps, on held-out images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.files import publish
from adapterbench.formats.image import to_array
from adapterbench.pretraining.controlnet import edges
from adapterbench.pretraining.drawing import DrawParams, choose, grid, load_pipeline, to_pil
from adapterbench.pretraining.images import CaptionedImages, load_images
from adapterbench.report.intervals import bootstrap
from adapterbench.sampling.items import noise
from adapterbench.scoring.pixels import edge_f1

SCALES = {"no_control": 0.0, "control": 1.0}
"""Method -> weight of the ControlNet; all else, including the noise, is the same."""

SHOWN = "edges_alone"
"""The prompt of the images that are shown."""


def measure(
    params: DrawParams, shards: Path, backbone: Path, controlnet: Path, out: Path
) -> dict[str, Any]:
    """Generate images of held-out edge maps with and without control; return the edge F1.

    Args:
        out: PNG of the images without text: edge maps (top), without control, with it (bottom).

    Returns:
        For an empty text (`edges_alone`) and the image's caption (`with_caption`): mean `f1` of
        both methods, and the 95 % interval of their difference. And the number of images.
    """
    torch.set_flush_denormal(True)
    held_out = load_images(shards, "validation")
    images = held_out.at(choose(held_out, params.items, params.seed))
    control = edges(images)
    pipe = StableDiffusionControlNetPipeline.from_pipe(
        load_pipeline(backbone),
        controlnet=ControlNetModel.from_pretrained(
            controlnet, torch_dtype=torch.float32, use_safetensors=True
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    prompts = {SHOWN: replace(images, captions=[("",)] * len(images)), "with_caption": images}
    found: dict[str, Any] = {"images": len(images)}
    for name, prompted in prompts.items():
        made = {key: draw(pipe, prompted, control, scale, params) for key, scale in SCALES.items()}
        found[name] = follows(made, control, params.seed)
        if name == SHOWN:
            sheet = grid(control[:32], *(pixels[:32] for pixels in made.values()))
    with publish(out) as beside:
        sheet.save(beside, "PNG")
    return found


def follows(made: dict[str, Tensor], control: Tensor, seed: int) -> dict[str, float]:
    """Mean edge F1 of the images of each method, and the interval of what control gains."""
    f1 = {name: edge_f1(drawn_edges(pixels), control) for name, pixels in made.items()}
    gain = (f1["control"] - f1["no_control"]).double().numpy()[None]
    low, high = bootstrap(gain, samples=10_000, confidence=0.95, seed=seed)
    means = {f"f1_{name}": float(values.mean()) for name, values in f1.items()}
    return {**means, "gain_low": float(low[0]), "gain_high": float(high[0])}


def draw(
    pipe: StableDiffusionControlNetPipeline,
    images: CaptionedImages,
    control: Tensor,
    scale: float,
    params: DrawParams,
) -> Tensor:
    """Images of the captions under control of weight `scale`: uint8 `(N, 3, H, W)`."""
    config = pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    made = []
    for start in tqdm(range(0, len(images), params.batch_size), desc=f"control {scale}"):
        part = range(len(images))[start : start + params.batch_size]
        made += pipe(
            [images.captions[i][0] for i in part],
            image=to_pil(control[part.start : part.stop]),
            latents=torch.stack([noise(images.keys[i], 0, params.seed, shape) for i in part]),
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
            controlnet_conditioning_scale=scale,
        ).images
    return torch.from_numpy(np.stack([to_array(image) for image in made]))


def drawn_edges(pixels: Tensor) -> Tensor:
    """Edge maps of uint8 images `(N, 3, H, W)`, as in the ControlNet's training."""
    names = [str(number) for number in range(len(pixels))]
    return edges(CaptionedImages(pixels, [()] * len(pixels), names, names))

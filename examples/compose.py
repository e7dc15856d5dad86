"""An image prompt combined with the other inputs of diffusers' pipelines, as one figure.

`make repro`, then
python examples/compose.py docs/compose.jpg
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from adapterbench import load_adapter
from adapterbench.formats.edges import edge_map
from adapterbench.formats.shards import read_split
from adapterbench.report.figures import Cell, grid

ROWS = [  # image prompt, other image, text: held-out images
    ("google-1f433", "twitter-1f98e", "red animal, animal marine"),
    ("fluent-1f478", "google-1f469-200d-1f373", "woman with dark skin tone, person"),
    ("google-1f3ce-fe0f", "google-1f6b2", "blue car, transport ground, vehicle"),
    ("fluent-1f353", "google-1f337", "green pear, food fruit"),
    ("google-1f910", "google-1f638", "green face, face neutral skeptical"),
]
SIDE = 64
STEPS = 20

pipe = StableDiffusionPipeline.from_pretrained("data/backbone", safety_checker=None)
controlnet = ControlNetModel.from_pretrained("pins/emoji_controlnet")
image_prompt = load_adapter(pipe, "models/ip_adapter_mlp")
img2img = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
control = StableDiffusionControlNetPipeline(
    **pipe.components, controlnet=controlnet, requires_safety_checker=False
)
for pipeline in (pipe, img2img, control):
    pipeline.to(torch.float32).set_progress_bar_config(disable=True)


def keep_upper_half(other: Image.Image) -> Any:
    """Inpainting by a callback; diffusers' own pipeline supports only 4 latent channels.

    After each step the upper half is replaced by `other` at the noise level of the next step.
    """
    with torch.no_grad():
        pixels = pipe.image_processor.preprocess(other)
        kept = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(1))
    upper = slice(0, kept.shape[2] // 2)

    def keep(_pipe: Any, step: int, _t: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        later = pipe.scheduler.timesteps[step + 1 : step + 2]
        noisy = pipe.scheduler.add_noise(kept, noise, later) if len(later) else kept
        inputs["latents"][:, :, upper] = noisy[:, :, upper]
        return inputs

    return keep


def generate(pipeline: Any, text: str, scale: float, images: Any, **inputs: Any) -> Image.Image:
    """Generate an image with a pipeline; the noise is always the same."""
    prompt = image_prompt(images, scale=scale, guidance_scale=3.0)
    seed = torch.Generator().manual_seed(0)
    image: Image.Image = pipeline(
        text, num_inference_steps=STEPS, generator=seed, **prompt, **inputs
    ).images[0]
    return image


def cells(image: Image.Image, other: Image.Image, text: str) -> Iterator[tuple[str, Cell]]:
    """One row: title and content of each column."""
    edges = edge_map(other, SIDE)
    yield "Image prompt", image
    yield "alone", generate(pipe, "", 1.0, image)
    yield "Text", text
    yield "text alone", generate(pipe, text, 0.0, image)
    yield "image prompt + text", generate(pipe, text, 0.6, image)
    yield "Other image", other
    yield "both as image prompts", generate(pipe, "", 1.0, [image, other])
    yield "image prompt on img2img", generate(img2img, "", 1.0, image, image=other, strength=0.7)
    inpaint = {"callback_on_step_end": keep_upper_half(other)}
    yield "image prompt in the lower half", generate(pipe, "", 1.0, image, **inpaint)
    yield "Its edges", edges
    yield "text + edges", generate(control, text, 0.0, image, image=edges)
    yield "image prompt + edges", generate(control, "", 1.0, image, image=edges)


held_out = {s.key: s.image for s in read_split(Path("data/shards"), "validation")}
rows = [dict(cells(held_out[first], held_out[other], text)) for first, other, text in ROWS]
figure = grid({title: [row[title] for row in rows] for title in rows[0]})
figure.savefig(sys.argv[1])

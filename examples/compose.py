"""An image prompt with everything else that steers diffusers' pipelines, as one picture.

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

ROWS = [  # image prompt, another picture, text: held-out concepts
    ("google-1f980", "google-1f98e", "blue animal, animal marine"),
    ("google-1f478", "google-1f469-200d-1f373", "woman with dark skin tone, person"),
    ("google-1f695", "google-1f6a2", "blue car, transport ground, vehicle"),
    ("google-1f353", "google-1f337", "green pear, food fruit"),
    ("google-1f92b", "google-1f639", "green face, face neutral skeptical"),
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
for each in (pipe, img2img, control):
    each.to(torch.float32).set_progress_bar_config(disable=True)


def keep_upper_half(other: Image.Image) -> Any:
    """Inpainting by a callback: diffusers' own pipeline takes UNets of 4 latent channels alone.

    After each step the upper half is `other` again, with the noise of the next one.
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


def draw(kind: Any, text: str, scale: float, pictures: Any, **inputs: Any) -> Image.Image:
    """A picture from the same noise, in whatever way."""
    prompt = image_prompt(pictures, scale=scale, guidance_scale=3.0)
    seed = torch.Generator().manual_seed(0)
    picture: Image.Image = kind(
        text, num_inference_steps=STEPS, generator=seed, **prompt, **inputs
    ).images[0]
    return picture


def cells(picture: Image.Image, other: Image.Image, text: str) -> Iterator[tuple[str, Cell]]:
    """One row: title and content of each column."""
    edges = edge_map(other, SIDE)
    yield "Image prompt", picture
    yield "alone", draw(pipe, "", 1.0, picture)
    yield "Text", text
    yield "text alone", draw(pipe, text, 0.0, picture)
    yield "image prompt + text", draw(pipe, text, 0.6, picture)
    yield "Other picture", other
    yield "both as image prompts", draw(pipe, "", 1.0, [picture, other])
    yield "image prompt on img2img", draw(img2img, "", 1.0, picture, image=other, strength=0.7)
    inpaint = {"callback_on_step_end": keep_upper_half(other)}
    yield "image prompt in the lower half", draw(pipe, "", 1.0, picture, **inpaint)
    yield "Its edges", edges
    yield "text + edges", draw(control, text, 0.0, picture, image=edges)
    yield "image prompt + edges", draw(control, "", 1.0, picture, image=edges)


held_out = {s.key: s.image for s in read_split(Path("data/shards"), "validation")}
rows = [dict(cells(held_out[first], held_out[other], text)) for first, other, text in ROWS]
figure = grid({title: [row[title] for row in rows] for title in rows[0]})
figure.savefig(sys.argv[1])

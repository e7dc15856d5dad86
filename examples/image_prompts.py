"""Options of image prompts (docs/image-prompts.md) as one figure: a row a pair of held-out images.

`make repro`, then
python examples/image_prompts.py docs/image_prompt_options.jpg

The pairs are the first in hashed order. Columns of presets are there if stage `layers` has measured
the adapter: dvc exp run -S 'layers.variants=[ip_adapter_mlp]'
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageOps

from adapterbench import load_adapter
from adapterbench.core.seeds import rank
from adapterbench.exchange.presets import preset_names
from adapterbench.formats.shards import read_split
from adapterbench.report.figures import Cell, grid

ROWS = 6
ADAPTER, OTHER_ADAPTER = Path("models/ip_adapter_mlp"), Path("models/ip_adapter_lora")
LEFT = Image.new("L", (64, 64))
LEFT.paste(255, (0, 0, 32, 64))
RIGHT = ImageOps.invert(LEFT)

pipe = StableDiffusionPipeline.from_pretrained("data/backbone", safety_checker=None)
pipe.to(torch.float32).set_progress_bar_config(disable=True)


def generate(image_prompt: Any, images: Any, **options: Any) -> Image.Image:
    """Generate an image from image prompts alone; the noise is always the same."""
    prompt = image_prompt(images, guidance_scale=3.0, **options)
    seed = torch.Generator().manual_seed(0)
    image: Image.Image = pipe("", num_inference_steps=20, generator=seed, **prompt).images[0]
    return image


def of_one_adapter(image: Image.Image, other: Image.Image) -> Iterator[tuple[str, Cell]]:
    """Title and content of the columns that one adapter makes."""
    yield "Image prompt", image
    yield "Other image", other
    yield "image prompt alone", generate(one, image)
    yield "left half, other in the right", generate(one, [image, other], masks=[LEFT, RIGHT])
    yield "three parts to one of the other", generate(one, [image, other], weights=[3, 1])
    yield "other image as negative", generate(one, image, negative=other)
    yield "first half of the steps", generate(one, image, end=0.5)
    yield "second half of the steps", generate(one, image, start=0.5)
    for name in preset_names(ADAPTER):
        yield f'scale="{name}"', generate(one, image, scale=name)


held_out = [(s.key, s.image) for s in read_split(Path("data/shards"), "validation")]
chosen = [image for _, image in sorted(held_out, key=lambda item: rank(item[0], 0))]
pairs = list(zip(chosen[: 2 * ROWS : 2], chosen[1 : 2 * ROWS : 2], strict=True))

one = load_adapter(pipe, ADAPTER)
rows = [dict(of_one_adapter(*pair)) for pair in pairs]
one.detach()

both = load_adapter(pipe, [ADAPTER, OTHER_ADAPTER])
for row, (image, other) in zip(rows, pairs, strict=True):
    row["an adapter each"] = generate(both, [image, other], scale=[0.6, 0.6])
both.detach()

figure = grid({title: [row[title] for row in rows] for title in rows[0]})
figure.savefig(sys.argv[1])

"""What the small backbone can do on concepts that VAE and UNet never saw, with pictures."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from jinja2 import Template
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import Count, Section
from adapterbench.core.files import publish
from adapterbench.formats.image import to_array
from adapterbench.frozen.load import Clip, load_clip
from adapterbench.pretraining.clip import recall
from adapterbench.pretraining.pictures import Pictures, load_pictures
from adapterbench.pretraining.vae import psnr, reconstruct
from adapterbench.sampling.items import choose_items, noise


class ReportParams(Section):
    """What the report samples."""

    items: Count
    """Held-out pictures whose captions are drawn."""
    steps: Count
    """DPM-Solver++ steps."""
    guidance_scale: Annotated[float, Field(ge=1)]
    """Classifier-free guidance weight."""
    batch_size: Count
    """Pictures made at a time."""
    seed: int
    """Seed of the choice and of the noise."""


REPORT = Template(
    """# The small backbone on held-out concepts

Measured on the validation split: {{ bars.pictures }} pictures of concepts that the VAE and the UNet
never saw. The two CLIPs (two seeds of one recipe) were trained on all pictures, these included, as
the CLIPs around Stable Diffusion have seen nearly everything that one can ask them for: a judge has
to know what it judges, and a prompt is of no use in words that the text encoder has never read.
Their recall below is therefore on pairs that they have seen.

| what | measured | bar |
|---|---|---|
| VAE, mean PSNR (dB) | {{ "%.2f"|format(bars.vae_psnr) }} | 25 |
| VAE, colour cast (mean of red, green, blue, of 255) | {{ bars.vae_cast }} | none |
| evaluator, recall@10 of 500 | {{ "%.3f"|format(bars.evaluator_recall_at_10) }} | 0.6 |
| image encoder, recall@10 of 500 | {{ "%.3f"|format(bars.encoder_recall_at_10) }} | |
| CLIP-T of text to image | {{ "%.3f"|format(bars.clip_t_generated) }} | |
| CLIP-T of real pairs | {{ "%.3f"|format(bars.clip_t_real) }} | |
| CLIP-T of shuffled captions | {{ "%.3f"|format(bars.clip_t_shuffled) }} | |
| way from shuffled to real | {{ "%.0f"|format(100 * bars.clip_t_share) }} % | 75 % |

CLIP-T is the mean cosine on the evaluator over {{ params.items }} items of different concepts, one
picture each, {{ params.steps }} DPM-Solver++ steps, guidance {{ params.guidance_scale }};
"shuffled" scores the real pictures against other items' captions. Recall is from image to text.

![real pictures above, their reconstructions below](vae.png)

Real pictures above, what the VAE makes of them below.

![text to image](text_to_image.png)

Real pictures above, text to image from their captions below.
"""
)


def report(
    params: ReportParams, shards: Path, pipeline: Path, encoders: list[Path], out: Path
) -> dict[str, Any]:
    """Write `out/README.md` and its pictures; return the measured bars.

    Args:
        encoders: folders of the evaluator and of the image encoder.
    """
    torch.set_flush_denormal(True)
    pictures = load_pictures(shards, "validation")
    evaluator, encoder = (load_clip(f"local-dir:{folder}", None) for folder in encoders)
    pipe = load_pipeline(pipeline)
    chosen = choose(pictures, params)
    restored = reconstruct(pipe.vae, pictures.pixels)
    generated = draw(pipe, pictures, chosen, params)
    real, text = embed(evaluator, pictures)
    own_real, own_text = embed(encoder, pictures)
    drawn = unit(torch.cat([evaluator.image_embeds(images(g)) for g in generated.split(64)]))
    truth, floor = (
        mean_cosine(real[chosen], text[chosen]),
        mean_cosine(real[chosen], text[chosen].roll(1, 0)),
    )
    made = mean_cosine(drawn, text[chosen])
    cast = (restored.double() - pictures.pixels.double()).mean(dim=(0, 2, 3))
    bars = {
        "pictures": len(pictures),
        "vae_psnr": float(psnr(restored, pictures.pixels).mean()),
        "vae_cast": ", ".join(f"{shift:+.2f}" for shift in cast.tolist()),
        "evaluator_recall_at_10": recall(real[:500], text[:500], 10),
        "encoder_recall_at_10": recall(own_real[:500], own_text[:500], 10),
        "clip_t_generated": made,
        "clip_t_real": truth,
        "clip_t_shuffled": floor,
        "clip_t_share": (made - floor) / (truth - floor),
    }
    with publish(out) as folder:
        folder.mkdir()
        (folder / "README.md").write_text(REPORT.render(bars=bars, params=params) + "\n")
        grid(pictures.pixels[chosen[:32]], restored[chosen[:32]]).save(folder / "vae.png")
        grid(pictures.pixels[chosen[:64]], generated[:64]).save(folder / "text_to_image.png")
    return bars


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The assembled pipeline with DPM-Solver++."""
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


def choose(pictures: Pictures, params: ReportParams) -> list[int]:
    """Numbers of the held-out pictures that are drawn, one a concept."""
    rows = [
        {"key": key, "concept": concept}
        for key, concept in zip(pictures.keys, pictures.concepts, strict=True)
    ]
    return choose_items(rows, params.items, params.seed)


def draw(
    pipe: StableDiffusionPipeline, pictures: Pictures, chosen: list[int], params: ReportParams
) -> Tensor:
    """Text to image for the chosen captions: uint8 `(N, 3, H, W)`."""
    config = pipe.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    made: list[Image.Image] = []
    for start in tqdm(range(0, len(chosen), params.batch_size), desc="draw"):
        part = chosen[start : start + params.batch_size]
        latents = [noise(pictures.keys[i], 0, params.seed, shape) for i in part]
        made += pipe(
            [pictures.captions[i][0] for i in part],
            latents=torch.stack(latents),
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
        ).images
    return torch.from_numpy(np.stack([to_array(image) for image in made]))


def embed(clip: Clip, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Unit embeddings of all pictures and of their first captions."""
    image = torch.cat([clip.image_embeds(images(part)) for part in pictures.pixels.split(256)])
    return unit(image), unit(clip.text_embeds([texts[0] for texts in pictures.captions]))


def images(pixels: Tensor) -> list[Image.Image]:
    """uint8 `(N, 3, H, W)` as pictures."""
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]


def unit(embeds: Tensor) -> Tensor:
    """Rows of length 1."""
    return torch.nn.functional.normalize(embeds, dim=-1)


def mean_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine of the rows of two tables of unit vectors."""
    return float((a * b).sum(dim=-1).mean())


def grid(*layers: Tensor, columns: int = 16, zoom: int = 2) -> Image.Image:
    """Pictures that belong together one above the other, 16 a line; a layer `(N, 3, H, W)`."""
    lines = [
        torch.cat([torch.cat(list(rows[at : at + columns]), dim=2) for rows in layers], 1)
        for at in range(0, len(layers[0]), columns)
    ]
    sheet = Image.fromarray(torch.cat(lines, dim=1).permute(1, 2, 0).numpy())
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.BICUBIC)

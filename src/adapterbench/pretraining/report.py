"""Measure the small backbone on held-out images; write the report with its grids."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from adapterbench.core.config import Count
from adapterbench.core.files import publish
from adapterbench.formats.shards import read_manifest
from adapterbench.frozen.load import load_clip
from adapterbench.pretraining.clip import recall
from adapterbench.pretraining.drawing import DrawParams, choose, draw, grid, load_pipeline, to_pil
from adapterbench.pretraining.images import CaptionedImages, load_images
from adapterbench.pretraining.likeness import (
    Likeness,
    across_makers,
    likeness,
    same_drawn_twice,
    thumbnails,
)
from adapterbench.pretraining.vae import psnr, reconstruct
from adapterbench.scoring.evaluator import Evaluator
from adapterbench.scoring.evaluators import timm
from adapterbench.scoring.measures import cosine


class ReportParams(DrawParams):
    """Sampling and evaluation of the report."""

    shown: Count
    """Images of a grid, and references of a group for R@1."""
    resolution: Count
    """Side to which the neutral evaluator scales an image, pixels."""


DRAWN = {"validation": "held out", "novel": "of novel concepts", "train": "trained on"}
"""Split -> name of its images in the report."""

TEMPLATE = Environment(
    loader=PackageLoader("adapterbench.pretraining"), undefined=StrictUndefined
).get_template("report.md")


@dataclass(frozen=True)
class Drawn:
    """Real images of a split, and images generated from their captions."""

    real: CaptionedImages
    generated: Tensor
    """uint8 `(N, 3, H, W)`."""


def report(
    params: ReportParams,
    shards: Path,
    pipeline: Path,
    evaluators: dict[str, Evaluator],
    out: Path,
) -> dict[str, Any]:
    """Write `out/README.md` and its grids; return all measurements.

    Args:
        evaluators: `evaluator` and `image_encoder`, two CLIPs, and `neutral`.
    """
    torch.set_flush_denormal(True)
    held_out, train = load_images(shards, "validation"), load_images(shards, "train")
    pipe = load_pipeline(pipeline)
    splits = [split for split in DRAWN if split in read_manifest(shards).splits]
    drawn = {split: draw_split(pipe, load_images(shards, split), params) for split in splits}
    restored = reconstruct(pipe.vae, held_out.pixels)
    neutral = evaluators["neutral"]
    pairs = same_drawn_twice(held_out, train, params.seed)
    queries = to_pil(held_out.pixels[[query for query, _ in pairs]])
    gallery = to_pil(train.pixels[[partner for _, partner in pairs]])
    embedders = {name: evaluator.images for name, evaluator in evaluators.items()}
    bars = {
        "images": {"validation": len(held_out), "train": len(train)},
        "vae": {
            "psnr": float(psnr(restored, held_out.pixels).mean()),
            **asdict(compare(neutral, restored, held_out.pixels, params)),
        },
        "text_to_image": {
            split: asdict(compare(neutral, pair.generated, pair.real.pixels, params))
            for split, pair in drawn.items()
        },
        "across_makers": pairs
        and {
            "among": len(pairs),
            **{
                name: across_makers(embed, queries, gallery)
                for name, embed in {"thumbnails": thumbnails, **embedders}.items()
            },
        },
        "recall_at_10_of_500": {
            name: recall(*embed_pairs(evaluators[name], held_out, 500), 10)
            for name in ("evaluator", "image_encoder")
        },
        "clip_t": clip_t(evaluators["evaluator"], drawn["validation"]),
    }
    with publish(out) as folder:
        folder.mkdir()
        (folder / "README.md").write_text(
            TEMPLATE.render(
                bars=bars, params=params, drawn={split: DRAWN[split] for split in splits}
            )
            + "\n"
        )
        shown = slice(params.shown)
        grid(held_out.pixels[shown], restored[shown]).save(folder / "vae.png")
        for split, pair in drawn.items():
            sheet = grid(pair.real.pixels[shown], pair.generated[shown])
            sheet.save(folder / f"text_to_image_{split}.png")
    return bars


def load_evaluators(clips: dict[str, Path], network: Path, resolution: int) -> dict[str, Evaluator]:
    """Load the CLIPs that this pipeline trained, by name, and the evaluator `neutral`."""
    evaluators = {
        "neutral": timm.evaluator(timm.Params(resolution=resolution, batch_size=16), network)
    }
    for name, folder in clips.items():
        clip = load_clip(f"local-dir:{folder}", None)
        evaluators[name] = Evaluator(clip.image_embeds, clip.text_embeds, batch_size=64)
    return evaluators


def draw_split(
    pipe: StableDiffusionPipeline, images: CaptionedImages, params: ReportParams
) -> Drawn:
    """Choose images of different concepts by hash; generate an image from each caption."""
    concepts = len(set(images.concepts))
    chosen = images.at(choose(images, min(params.items, concepts), params.seed))
    return Drawn(chosen, draw(pipe, chosen, params))


def compare(neutral: Evaluator, made: Tensor, real: Tensor, params: ReportParams) -> Likeness:
    """Neutral scores of images against their references, uint8 `(N, 3, H, W)` each."""
    a, b = (neutral.images(to_pil(pixels)) for pixels in (made, real))
    return likeness(a, b, params.shown, params.seed)


def clip_t(evaluator: Evaluator, drawn: Drawn) -> dict[str, float]:
    """Mean CLIP-T of generated images, real images, and real images with shuffled captions."""
    text = evaluator.texts([texts[0] for texts in drawn.real.captions])
    real = evaluator.images(to_pil(drawn.real.pixels))
    made = evaluator.images(to_pil(drawn.generated))
    means = {
        "generated": cosine(made, text),
        "real": cosine(real, text),
        "shuffled": cosine(real, text.roll(1, 0)),
    }
    return {name: float(values.mean()) for name, values in means.items()}


def embed_pairs(evaluator: Evaluator, images: CaptionedImages, count: int) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the first `count` images and of their first captions."""
    texts = evaluator.texts([texts[0] for texts in images.captions[:count]])
    return evaluator.images(to_pil(images.pixels[:count])), texts

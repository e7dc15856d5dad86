"""Read images and scores of stage `illustrate`: other texts, base models and scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
from PIL import Image

from adapterbench.core.config import IllustrateParams
from adapterbench.core.errors import InputError, one_line
from adapterbench.formats.frames import read_frame
from adapterbench.formats.generated import Illustrations, decode_images, read_names, samples_tar
from adapterbench.formats.pairs import list_path, read_pairs, tar_path
from adapterbench.report.figures import Cell
from adapterbench.report.methods import Names
from adapterbench.report.references import read_references
from adapterbench.report.scores import ROUNDING

Columns = dict[str, Sequence[Cell]]

SHOWN = 3
"""Image prompts shown on every base model, and pairs shown of each protocol of `formats.pairs`."""

TRAINED_ON = "as trained on"
"""Label of the base model that the adapters were trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Effect of the scale on images from a text prompt and an unrelated image prompt."""

    text: str
    """Text prompt of the images shown."""
    image: Image.Image
    """Image prompt of the images shown."""
    images: dict[str, list[Image.Image]]
    """By variant: one image per scale."""
    scores: dict[str, pd.DataFrame]
    """By variant: columns `scale, clip_t, clip_i`, one row per scale, means over the items."""
    items: int
    """Number of items in the means."""


def prompts_grid(
    params: IllustrateParams, folder: Path, variants: Sequence[str], shards: Path, label: Names
) -> Columns:
    """Columns: image prompt, text prompt, each variant, and the base model with the text alone."""
    pairs = read_names(Illustrations(folder / variants[0]).prompts)
    references = read_references(shards, [key for key, _ in pairs])
    return {
        "Image prompt": [reference.image for reference in references],
        "Text prompt": [prompt.text for prompt in params.prompts],
        **{
            label(method): [
                decode_images(Illustrations(folder / method).prompts, [key], k)[0]
                for key, k in pairs
            ]
            for method in [*variants, "text_only"]
        },
    }


def answers_grid(
    folder: Path, variants: Sequence[str], shards: Path, label: Names, protocol: str
) -> Columns:
    """Columns: prompts, goal, each variant given both, the base model with the text alone."""
    first = Illustrations(folder / variants[0]).pairs
    pairs = read_pairs(list_path(first, protocol))[:SHOWN]
    prompts = [pair.prompt for pair in pairs]
    rows = {**dict.fromkeys(variants, "image_and_text"), "text_only": "text_only"}

    def references(keys: Sequence[str]) -> list[Cell]:
        return [reference.image for reference in read_references(shards, keys)]

    return {
        "Image prompt": references(prompts),
        "Text prompt": [pair.text for pair in pairs],
        "Goal (not given)": references([pair.goal for pair in pairs]),
        **{
            label(m): decode_images(
                tar_path(Illustrations(folder / m).pairs, protocol, row), prompts
            )
            for m, row in rows.items()
        },
    }


def bases_grid(
    folder: Path, samples: Path, variants: Sequence[str], shards: Path, label: Names
) -> Columns:
    """Grid with a group of rows per image prompt, a row per base model and a column per variant.

    The last column is the base model alone, given the image prompt's caption: its own style.
    """
    pairs = read_names(Illustrations(folder / variants[0]).prompts)
    keys = list(dict.fromkeys(key for key, _ in pairs))[:SHOWN]
    bases = Illustrations(folder / variants[0]).bases
    protocols = {**dict.fromkeys(variants, "image"), "text_only": "image_text"}
    columns = {
        label(method): [
            decode_images(samples_tar(samples / method, protocol), keys),
            *(decode_images(Illustrations(folder / method).base(base), keys) for base in bases),
        ]
        for method, protocol in protocols.items()
    }
    names = [TRAINED_ON, *(base.replace("_", " ") for base in bases)]
    prompts: list[Cell] = []
    for reference in read_references(shards, keys):
        prompts += [reference.image, *[""] * len(bases)]
    return {
        "Image prompt": prompts,
        "Base model": names * len(keys),
        **{
            method: [images[row] for row in range(len(keys)) for images in by_base]
            for method, by_base in columns.items()
        },
    }


def read_sweep(
    params: IllustrateParams, folder: Path, variants: Sequence[str], shards: Path, place: int = 0
) -> Sweep:
    """The scores of the sweep, and the images of its item number `place`."""
    drawn = {variant: Illustrations(folder / variant) for variant in variants}
    names = read_names(drawn[variants[0]].scale(params.scales[0]))
    keys = [key for key, _ in names]
    own, other = [*pairwise(keys), (keys[-1], keys[0])][place % len(keys)]
    text, image = read_references(shards, [own, other])
    return Sweep(
        text=text.caption,
        image=image.image,
        images={
            v: [decode_images(at.scale(scale), [own])[0] for scale in params.scales]
            for v, at in drawn.items()
        },
        scores={v: read_scores(at.sweep_scores) for v, at in drawn.items()},
        items=len(keys),
    )


def read_scores(path: Path) -> pd.DataFrame:
    """Mean CLIP-T to the text prompt and mean CLIP-I to the image prompt by scale.

    Raises:
        UserError: the file is missing or damaged.
    """
    frame = read_frame(path, ["protocol", "clip_t", "clip_i_shuffled"])
    try:
        # an item's image was generated from the image prompt of the next item
        means = frame.groupby("protocol")[["clip_t", "clip_i_shuffled"]].mean().reset_index()
        means = means.set_axis(["scale", "clip_t", "clip_i"], axis="columns").astype(float)
        if not (means[["clip_t", "clip_i"]].abs() <= 1 + ROUNDING).all(axis=None):
            raise ValueError("a score is not a cosine")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error
    return means.sort_values("scale", ignore_index=True)

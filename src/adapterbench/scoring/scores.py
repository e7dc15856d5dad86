"""Scores of every image of one method, by a CLIP and by a neutral network.

CLIP-T = cos(v_gen, v_text), CLIP-I = cos(v_gen, v_ref): the deck's means are over these rows
(cosines, neither clipped nor scaled; CLIPScore of Hessel et al. 2021 is 2.5 max(CLIP-T, 0)). The
neutral evaluator gives the cosine of CLIP-I by its own vectors, whether an image finds its
reference among all N, and how much the K images of an item differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import ScoreParams
from adapterbench.core.errors import UserError
from adapterbench.formats.frames import write_frame
from adapterbench.formats.generated import HEADLINE, find_tars, read_images, read_names
from adapterbench.formats.shards import Sample, read_split
from adapterbench.frozen.load import load_part
from adapterbench.runs.processes import processes
from adapterbench.scoring.evaluator import Evaluator, Folders, load_evaluator
from adapterbench.scoring.measures import cosine, distribution, diversity, finds
from adapterbench.scoring.real import real_images
from adapterbench.scoring.samples import check_counts, embed

Names = list[tuple[str, int]]
"""Key and k of each image."""

MEANS = ("clip_t", "clip_i", "neutral", "r_at_1")
"""Columns whose means a record shows."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """The evaluators, and the N items whose images they score."""

    clip: Evaluator
    neutral: Evaluator | None
    """None leaves its scores out."""
    items: tuple[Sample, ...]
    kid_subset_size: int | None
    """See `ScoreParams`."""

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The place of each key among the items."""
        return {item.key: number for number, item in enumerate(self.items)}

    @cached_property
    def references(self) -> list[Image.Image]:
        """The items' images."""
        return [item.image for item in self.items]

    @cached_property
    def texts(self) -> Float[Tensor, "items dim"]:
        """The items' captions by the CLIP, `(N, D)`."""
        return self.clip.texts([item.captions[0] for item in self.items])

    @cached_property
    def clip_references(self) -> Float[Tensor, "items dim"]:
        """The items' images by the CLIP, `(N, D)`."""
        return self.clip.images(self.references)

    @cached_property
    def neutral_references(self) -> Float[Tensor, "items dim"]:
        """The items' images by the neutral evaluator, `(N, D)`."""
        assert self.neutral
        return self.neutral.images(self.references)


def load_scorer(
    params: ScoreParams, folders: Folders, shards: Path, samples: Path, neutral: bool = True
) -> Scorer:
    """Load the evaluators and the validation items that `samples` holds images of, in its order.

    Raises:
        UserError: the samples are missing or damaged, or hold an image of no validation item; or
            an evaluator cannot be loaded, or the one for CLIP-T reads no texts.
    """
    keys = dict.fromkeys(key for key, _ in read_names(find_tars(samples)[0]))
    items = {item.key: item for item in read_split(shards, "validation", keys=keys)}
    check_items(keys, items)
    evaluators, name = params.evaluators, "score.evaluators"
    clip = load_evaluator(evaluators.clip, folders, f"{name}.clip")
    if clip.text_embeds is None:
        raise UserError(
            f"params.yaml: {name}.clip.kind = {evaluators.clip.kind!r} reads no texts, which "
            "CLIP-T needs: take open_clip"
        )
    return Scorer(
        clip=clip,
        neutral=load_evaluator(evaluators.neutral, folders, f"{name}.neutral") if neutral else None,
        items=tuple(items[key] for key in keys),
        kid_subset_size=params.kid_subset_size,
    )


def check_items(keys: Any, known: Any) -> None:
    """Refuse an image that has no reference.

    Raises:
        UserError: one is of no item.
    """
    if strange := [key for key in keys if key not in known]:
        raise UserError(f"{strange[0]} is not a validation item: generate the images again")


def tasks(
    scorer: Scorer, samples: list[Path], backbone: Path | None
) -> dict[str, Callable[[Path], pd.DataFrame]]:
    """What scores each method into the file that it is given, by name of the method.

    Args:
        samples: folders of generated images, named after their methods.
        backbone: where there is one, real images are methods, too, some through its VAE.
    """
    found: dict[str, Callable[[Path], pd.DataFrame]] = {}
    for path in samples:
        found[path.name] = partial(score_samples, scorer, path)
    if backbone:
        vae = load_part(backbone, "vae").to(processes().device)
        for name, images in real_images(scorer.references, vae).items():
            found[name] = partial(score_real, scorer, images)
    return found


def score_samples(scorer: Scorer, samples: Path, out: Path) -> pd.DataFrame:
    """Score all tars of a method and write one row an image to the parquet file `out`.

    Columns: `protocol, key, k`, then see `score_images`.

    Raises:
        UserError: a tar is damaged, or holds an image of no item.
    """
    frames = []
    for path in tqdm(find_tars(samples), disable=not processes().is_main_process):
        images = list(read_images(path))
        names = [(image.key, image.k) for image in images]
        check_items([key for key, _ in names], scorer.numbers)
        check_counts(path, images)
        frames.append(score_images(scorer, path.stem, names, partial(embed, path, images)))
    return write(pd.concat(frames, ignore_index=True), out)


def score_real(scorer: Scorer, images: list[Image.Image], out: Path) -> pd.DataFrame:
    """Score a real image an item, in the items' order, in place of generated ones."""
    names = [(item.key, 0) for item in scorer.items]
    return write(score_images(scorer, HEADLINE, names, lambda by: by.images(images)), out)


def score_images(
    scorer: Scorer, protocol: str, names: Names, vectors: Callable[[Evaluator], Tensor]
) -> pd.DataFrame:
    """Score the images `names`, of which `vectors` gives an evaluator's, `(M, D)`.

    `clip_t, clip_i, neutral, r_at_1` are against the item's own caption and reference. With
    `_shuffled` they are against the next item's: what an adapter that was given another item's
    reference would get. `diversity` is an image's distance to the others of its item; `kid,
    precision, recall` are the method's, the same in every row, and NaN where not asked for.
    """
    own = torch.tensor([scorer.numbers[key] for key, _ in names])
    pairs = {"": own, "_shuffled": (own + 1) % len(scorer.items)}
    scores: dict[str, Tensor | float] = {}
    images = vectors(scorer.clip)
    for suffix, target in pairs.items():
        scores[f"clip_t{suffix}"] = cosine(images, scorer.texts[target])
        scores[f"clip_i{suffix}"] = cosine(images, scorer.clip_references[target])
    if scorer.neutral:
        images, references = vectors(scorer.neutral), scorer.neutral_references
        for suffix, target in pairs.items():
            scores[f"neutral{suffix}"] = cosine(images, references[target])
            scores[f"r_at_1{suffix}"] = finds(images, references, target)
        scores["diversity"] = diversity(images, own)
        scores |= distribution(images, references, scorer.kid_subset_size)
    index = {"protocol": protocol, "key": [key for key, _ in names], "k": [k for _, k in names]}
    return pd.DataFrame({**index, **{name: np.asarray(value) for name, value in scores.items()}})


def write(frame: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Write a table, which every process has, as parquet."""
    state = processes()
    if state.is_main_process:
        write_frame(frame, out)
    state.wait_for_everyone()
    return frame

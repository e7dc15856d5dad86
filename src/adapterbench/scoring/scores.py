"""Scores of every image of one method, by a CLIP and by a neutral evaluator.

CLIP-T = cos(v_gen, v_text), CLIP-I = cos(v_gen, v_ref): cosines, neither clipped nor scaled
(CLIPScore of Hessel et al. 2021 is 2.5 max(CLIP-T, 0)). The neutral evaluator gives the cosine to
the reference in its own embedding space, R@1 among all N references, and the diversity of an
item's K images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from adapterbench.runs.processes import process_state
from adapterbench.scoring.evaluator import Evaluator, Folders, load_evaluator
from adapterbench.scoring.measures import cosine, distribution, diversity, finds
from adapterbench.scoring.real import real_images
from adapterbench.scoring.samples import check_counts, embed

Names = list[tuple[str, int]]
"""Key and k of each image."""

MEANS = ("clip_t", "clip_i", "neutral", "r_at_1")
"""Columns whose means are recorded."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """The evaluators and the N items whose images are scored."""

    clip: Evaluator
    neutral: Evaluator | None
    """None: its scores are left out."""
    items: tuple[Sample, ...]
    kid_subset_size: int | None
    """See `ScoreParams`."""

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Key -> index of the item."""
        return {item.key: number for number, item in enumerate(self.items)}

    @cached_property
    def references(self) -> list[Image.Image]:
        """Reference images of the items."""
        return [item.image for item in self.items]

    @cached_property
    def texts(self) -> Float[Tensor, "items dim"]:
        """CLIP embeddings of the items' captions, `(N, D)`."""
        return self.clip.texts([item.captions[0] for item in self.items])

    @cached_property
    def clip_references(self) -> Float[Tensor, "items dim"]:
        """CLIP embeddings of the reference images, `(N, D)`."""
        return self.clip.images(self.references)

    @cached_property
    def neutral_references(self) -> Float[Tensor, "items dim"]:
        """Neutral embeddings of the reference images, `(N, D)`."""
        assert self.neutral
        return self.neutral.images(self.references)


def load_scorer(
    params: ScoreParams,
    folders: Folders,
    shards: Path,
    samples: Path,
    neutral: bool = True,
    split: str = "validation",
) -> Scorer:
    """Load the evaluators and the items of a split that `samples` has images of, in that order.

    Raises:
        UserError: the samples are missing or damaged, or have an image of no item; an
            evaluator cannot be loaded; or the one for CLIP-T has no text encoder.
    """
    keys = dict.fromkeys(key for key, _ in read_names(find_tars(samples)[0]))
    items = {item.key: item for item in read_split(shards, split, keys=keys)}
    check_items(keys, items)
    evaluators, name = params.evaluators, "score.evaluators"
    clip = load_evaluator(evaluators.clip, folders, f"{name}.clip")
    if clip.text_embeds is None:
        raise UserError(
            f"params.yaml: {name}.clip.kind = {evaluators.clip.kind!r} has no text encoder, "
            "which CLIP-T needs: use open_clip"
        )
    return Scorer(
        clip=clip,
        neutral=load_evaluator(evaluators.neutral, folders, f"{name}.neutral") if neutral else None,
        items=tuple(items[key] for key in keys),
        kid_subset_size=params.kid_subset_size,
    )


def score_methods(
    params: ScoreParams,
    samples: list[Path],
    shards: Path,
    backbone: Path,
    evaluator: Path,
    split: str,
    out: Path,
) -> None:
    """Write `out/<method>.parquet` for all methods and for the real images of a split.

    A KID subset is the whole split where the split is smaller than `params.kid_subset_size`.

    Args:
        samples: folders of generated images of the same items, named after their methods.
        shards: folder of stage `prepare`.
        backbone: folder of stage `backbone`.
        evaluator: folder of stage `neutral_evaluator`.
        split: whose items the images are of.

    Raises:
        UserError: see `load_scorer` and `score_samples`.
    """
    networks = Folders(backbone, evaluator)
    scorer = load_scorer(params, networks, shards, samples[0], split=split)
    if params.kid_subset_size:
        size = min(params.kid_subset_size, len(scorer.items))
        scorer = replace(scorer, kid_subset_size=size)
    for method, score in tasks(scorer, samples, backbone).items():
        score(out / f"{method}.parquet")


def check_items(keys: Any, known: Any) -> None:
    """Check that every key has a reference image.

    Raises:
        UserError: a key is not in `known`.
    """
    if unknown := [key for key in keys if key not in known]:
        raise UserError(f"{unknown[0]} is no item of this split: generate the images again")


def tasks(
    scorer: Scorer, samples: list[Path], backbone: Path | None
) -> dict[str, Callable[[Path], pd.DataFrame]]:
    """Functions that score a method and write the given parquet file, by name of the method.

    Args:
        samples: folders of generated images, named after their methods.
        backbone: if given, the rows of real images are included; `vae` uses its VAE.
    """
    scorers: dict[str, Callable[[Path], pd.DataFrame]] = {}
    for path in samples:
        scorers[path.name] = partial(score_samples, scorer, path)
    if backbone:
        vae = load_part(backbone, "vae").to(process_state().device)
        for name, images in real_images(scorer.references, vae).items():
            scorers[name] = partial(score_real, scorer, images)
    return scorers


def score_samples(scorer: Scorer, samples: Path, out: Path) -> pd.DataFrame:
    """Score all tars of a method; write one row per image to the parquet file `out`.

    Columns: `protocol, key, k`, then those of `score_images`.

    Raises:
        UserError: a tar is damaged or has an image of no item.
    """
    frames = []
    for path in tqdm(find_tars(samples), disable=not process_state().is_main_process):
        images = list(read_images(path))
        names = [(image.key, image.k) for image in images]
        check_items([key for key, _ in names], scorer.numbers)
        check_counts(path, images)
        frames.append(score_images(scorer, path.stem, names, partial(embed, path, images)))
    return write(pd.concat(frames, ignore_index=True), out)


def score_real(scorer: Scorer, images: list[Image.Image], out: Path) -> pd.DataFrame:
    """Score one real image per item, in the items' order, as if it were generated."""
    names = [(item.key, 0) for item in scorer.items]
    return write(score_images(scorer, HEADLINE, names, lambda by: by.images(images)), out)


def score_images(
    scorer: Scorer, protocol: str, names: Names, vectors: Callable[[Evaluator], Tensor]
) -> pd.DataFrame:
    """Score M images, one row each.

    `clip_t, clip_i, neutral, r_at_1` compare with the item's own caption and reference; with the
    suffix `_shuffled`, with the next item's, as if the images were made from another item's prompt.
    `diversity` is an image's distance to the other images of its item. `kid, precision, recall`
    belong to the method (the same in every row); NaN unless `kid_subset_size` is set.

    Args:
        names: key and k of each image.
        vectors: evaluator -> unit embeddings `(M, D)` of the images.
    """
    items = torch.tensor([scorer.numbers[key] for key, _ in names])
    targets = {"": items, "_shuffled": (items + 1) % len(scorer.items)}
    scores: dict[str, Tensor | float] = {}
    images = vectors(scorer.clip)
    for suffix, target in targets.items():
        scores[f"clip_t{suffix}"] = cosine(images, scorer.texts[target])
        scores[f"clip_i{suffix}"] = cosine(images, scorer.clip_references[target])
    if scorer.neutral:
        images, references = vectors(scorer.neutral), scorer.neutral_references
        for suffix, target in targets.items():
            scores[f"neutral{suffix}"] = cosine(images, references[target])
            scores[f"r_at_1{suffix}"] = finds(images, references, target)
        scores["diversity"] = diversity(images, items)
        scores |= distribution(images, references, scorer.kid_subset_size)
    index = {"protocol": protocol, "key": [key for key, _ in names], "k": [k for _, k in names]}
    return pd.DataFrame({**index, **{name: np.asarray(value) for name, value in scores.items()}})


def write(frame: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Write a table as parquet, in the main process alone; every process has the same table."""
    state = process_state()
    if state.is_main_process:
        write_frame(frame, out)
    state.wait_for_everyone()
    return frame

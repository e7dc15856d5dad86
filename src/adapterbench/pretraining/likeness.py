"""Similarity of images to their references, by the neutral and other evaluators."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapterbench.core.seeds import rank
from adapterbench.pretraining.clip import same_emoji
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.report.intervals import bootstrap
from adapterbench.scoring.measures import cosine, finds

Embed = Callable[[list[Image.Image]], Tensor]
"""Images -> unit embeddings `(N, D)`."""


@dataclass(frozen=True)
class Likeness:
    """Scores of images against their references."""

    items: int
    cosine: float
    low: float
    high: float
    """Ends of the 95 % interval of the mean cosine, over items."""
    r_at_1: float
    """R@1 of the own reference, mean over groups of `among` references."""
    among: int


def likeness(made: Tensor, real: Tensor, among: int, seed: int) -> Likeness:
    """Compare unit embeddings `(N, D)` row by row.

    R@1 is measured in groups of `among` rows, so that chance is `1 / among` for any number of
    items; an incomplete last group has no R@1.
    """
    values = cosine(made, real)
    low, high = bootstrap(values.numpy()[None], samples=10_000, confidence=0.95, seed=seed)
    among = min(among, len(made))
    whole = len(made) - len(made) % among
    hits = [
        finds(a, b, torch.arange(among))
        for a, b in zip(made[:whole].split(among), real[:whole].split(among), strict=True)
    ]
    return Likeness(
        items=len(made),
        cosine=float(values.mean()),
        low=float(low[0]),
        high=float(high[0]),
        r_at_1=float(torch.cat(hits).mean()),
        among=among,
    )


def same_drawn_twice(
    held_out: CaptionedImages, train: CaptionedImages, seed: int
) -> list[tuple[int, int]]:
    """Pairs of one emoji by two makers, one pair per concept, drawn by hash.

    Returns:
        Index of the held-out image and index of the training image. Empty where whole concepts are
        held out.
    """
    keys = [*held_out.keys, *train.keys]
    makers = same_emoji(keys)
    first = len(held_out)
    pairs: dict[str, tuple[int, int]] = {}
    for number in sorted(range(first), key=lambda n: rank(keys[n], seed)):
        partners = [n for n in makers[number] if n >= first]
        concept = held_out.concepts[number]
        if partners and concept not in pairs:
            chosen = min(partners, key=lambda n: rank(keys[n], seed))
            pairs[concept] = (number, chosen - first)
    return list(pairs.values())


def across_makers(embed: Embed, held_out: list[Image.Image], train: list[Image.Image]) -> float:
    """R@1 of held-out images among training images of the same emoji by other makers.

    Args:
        train: the partner of each held-out image; chance is 1 / N.
    """
    return float(finds(embed(held_out), embed(train), torch.arange(len(train))).mean())


def thumbnails(images: list[Image.Image]) -> Tensor:
    """Unit vectors `(N, 768)` of centred 16 x 16 pixels: a baseline of colour and layout."""
    small = [
        np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float32) for image in images
    ]
    flat = torch.from_numpy(np.stack(small)).flatten(1)
    return torch.nn.functional.normalize(flat - flat.mean(dim=0), dim=-1)

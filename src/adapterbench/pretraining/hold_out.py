"""Choose the images that nothing is trained on, once for all image sets; the list is committed."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from adapterbench.core.config import Count, DataParams, Section, parse
from adapterbench.core.registry import load
from adapterbench.core.seeds import rank
from adapterbench.data.prepare import Drops, clean
from adapterbench.data.split import HeldOut
from adapterbench.formats.image import decode, to_array
from adapterbench.formats.shards import Packed
from adapterbench.scoring.evaluators.timm import Params, evaluator

NOVEL = "novel"
Pair = tuple[float, str, str]
"""Cosine, key of a held-out image, key of its nearest training image."""


class HoldOutParams(Section):
    """Number of held-out concepts, and the makers they are held out from."""

    families: tuple[str, ...]
    """Families whose images may be held out; an eligible concept has images of each."""
    least_families: Count
    """Fewest families of an eligible concept, so that enough remain for training."""
    drawn_alike: frozenset[str]
    """Categories that every maker draws alike (flags, letters): never held out."""
    novel_images: Count
    """Most images of a novel concept, so that training loses few."""
    novel: Count
    """Number of concepts without any training image; their words occur in other captions."""
    tuning: Count
    """Number of concepts with one family held out for choosing settings."""
    validation: Count
    """Number of concepts with one family held out for the scores."""
    validation_pairs: Count
    """Number of further concepts with two families held out, for prompts with a right answer."""
    twin_cosine: Annotated[float, Field(gt=0, lt=1)]
    """Cosine of neutral features from which on two images count as twins (near duplicates)."""
    seed: int


SHOWN = 24
"""Pairs in the figure on each side of the threshold."""


@dataclass(frozen=True)
class Described:
    """Metadata of an image for the choice."""

    key: str
    concept: str
    family: str
    category: str
    name: str
    captions: tuple[str, ...]


def describe(
    params: DataParams, raw: Path, network: Path
) -> tuple[list[Described], Tensor, Tensor]:
    """Read all usable images of a source.

    Returns:
        Metadata of N images, uint8 pixels `(N, 3, H, W)`, and unit neutral features `(N, D)`.
    """
    source = load("adapterbench.data.sources", params.source)
    samples = source.read(raw, parse(source.Params, params.fetch, "data.fetch"))
    usable = clean(tqdm(samples, desc="read", mininterval=1), params, Drops(), raw)
    kept = [sample for sample in usable if isinstance(sample, Packed)]  # all artwork is packed
    decoded = [decode(sample.image) for sample in kept]
    images = [
        Described(
            key=sample.key,
            captions=sample.captions,
            **{name: sample.meta[name] for name in ("concept", "family", "category", "name")},
        )
        for sample in kept
    ]
    pixels = torch.from_numpy(np.stack([to_array(image) for image in decoded]))
    neutral = evaluator(Params(resolution=128, batch_size=16), network)
    parts = [decoded[at : at + 256] for at in range(0, len(decoded), 256)]
    features = [neutral.image_embeds(part) for part in tqdm(parts, desc="embed", mininterval=1)]
    return images, pixels, torch.nn.functional.normalize(torch.cat(features), dim=-1)


def choose(images: list[Described], params: HoldOutParams) -> dict[str, dict[str, tuple[str, ...]]]:
    """Choose the held-out families by concept for each split; concepts are drawn by hash.

    Returns:
        `HeldOut.splits`: for `validation`, `tuning` and `novel`, concept -> families.
    """
    families: dict[str, set[str]] = defaultdict(set)
    size: Counter[str] = Counter()
    for image in images:
        if image.category not in params.drawn_alike:
            families[image.concept].add(image.family)
            size[image.concept] += 1
    eligible = [
        concept
        for concept in sorted(families, key=lambda c: rank(c, params.seed))
        if families[concept] >= set(params.families)
        and len(families[concept]) >= params.least_families
    ]
    small = [concept for concept in eligible if size[concept] <= params.novel_images]
    novel = familiar(small, images, params.novel)
    rest = iter([concept for concept in eligible if concept not in novel])
    sizes = {"validation_pairs": 2, "validation": 1, "tuning": 1}
    splits: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for field, makers in sizes.items():
        name = field.partition("_")[0]
        for _ in range(getattr(params, field)):
            concept = next(rest)
            drawn = sorted(params.families, key=lambda f: rank(f"{concept}:{f}", params.seed))
            splits[name][concept] = tuple(sorted(drawn[:makers]))
    splits[NOVEL] = {concept: tuple(sorted(families[concept])) for concept in sorted(novel)}
    return {name: dict(sorted(splits[name].items())) for name in ("validation", "tuning", NOVEL)}


def familiar(eligible: list[str], images: list[Described], count: int) -> list[str]:
    """The first `count` concepts whose names' words all occur in captions of remaining concepts."""
    words: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = defaultdict(set)
    for image in images:
        words[image.concept].update(*map(words_of, image.captions))
        named[image.concept] |= words_of(image.name)
    users = Counter(word for concept in words.values() for word in concept)
    chosen: list[str] = []
    for concept in eligible:
        if len(chosen) < count and all(users[word] > 1 for word in named[concept]):
            chosen.append(concept)
            users.subtract(words[concept])
    return chosen


def words_of(text: str) -> set[str]:
    """Lower-case words of a text."""
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def nearest(held_out: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and index, `(N,)` each, of the nearest training image.

    Args:
        held_out: unit features `(N, D)`.
        train: unit features `(M, D)`.
    """
    parts = [(part @ train.T).max(dim=1) for part in held_out.split(256)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def hold_out(
    images: list[Described], features: Tensor, params: HoldOutParams
) -> tuple[HeldOut, list[Pair]]:
    """Choose the held-out images and find their twins among the training images.

    Args:
        features: unit neutral features `(N, D)` of `images`.

    Returns:
        The list, and every held-out image with its nearest training image, highest cosine first.
    """
    splits = HeldOut(splits=choose(images, params), twins={})
    held = [n for n, image in enumerate(images) if belongs(image, splits.splits)]
    train = sorted(set(range(len(images))) - set(held))
    cosine, number = nearest(features[held], features[train])
    pairs = sorted(
        (
            (float(c), images[n].key, images[train[int(m)]].key)
            for c, n, m in zip(cosine, held, number, strict=True)
        ),
        reverse=True,
    )
    twins = {key: twin for c, key, twin in pairs if c >= params.twin_cosine}
    return HeldOut(splits=splits.splits, twins=dict(sorted(twins.items()))), pairs


def belongs(image: Described, splits: dict[str, Any]) -> bool:
    """Whether an image is in a held-out split."""
    return any(image.family in split.get(image.concept, ()) for split in splits.values())


def sheet(
    pairs: list[Pair], images: list[Described], pixels: Tensor, threshold: float
) -> Image.Image:
    """Grid of the pairs nearest to the threshold: held-out images above their nearest neighbours.

    The first line shows twins, the second images that are scored.
    """
    number = {image.key: n for n, image in enumerate(images)}
    above = [pair for pair in pairs if pair[0] >= threshold][-SHOWN:]
    below = [pair for pair in pairs if pair[0] < threshold][:SHOWN]
    columns = [
        torch.cat([pixels[number[key]], pixels[number[twin]]], dim=1)
        for _, key, twin in [*above, *below]
    ]
    lines = [torch.cat(columns[at : at + SHOWN], dim=2) for at in range(0, len(columns), SHOWN)]
    width = max(line.shape[2] for line in lines)
    padded = [torch.nn.functional.pad(x, (0, width - x.shape[2]), value=255) for x in lines]
    return Image.fromarray(torch.cat(padded, dim=1).permute(1, 2, 0).numpy())

"""Reference images of the grids, and which items the grids show."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.formats.shards import read_split


@dataclass(frozen=True, slots=True)
class Reference:
    """The image prompt of an item and its caption."""

    image: Image.Image
    caption: str


def choose(keys: Collection[str], count: int) -> list[str]:
    """Up to `count` keys, evenly spaced over the sorted ones: the same each time, not picked."""
    ordered = sorted(keys)
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def read_references(shards: Path, keys: Sequence[str]) -> list[Reference]:
    """The validation items of `keys`, in their order.

    Raises:
        UserError: a shard is missing or damaged, or an item is in none of them.
    """
    found = {
        sample.key: Reference(sample.image, sample.captions[0])
        for sample in read_split(shards, "validation", keys=set(keys))
    }
    if missing := [key for key in keys if key not in found]:
        raise UserError(
            f"{shards} has no validation item {missing[0]} (and {len(missing) - 1} more): "
            "the images were generated from other shards; make shards and images again"
        )
    return [found[key] for key in keys]


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """A picture of `side` pixels for print; small ones are enlarged smoothly, not in blocks."""
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)

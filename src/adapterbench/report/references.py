"""Reference images of the grids, and the choice of the items that the grids show."""

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
    """Up to `count` keys, evenly spaced in the sorted list: deterministic, not picked by hand."""
    ordered = sorted(keys)
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def read_references(shards: Path, keys: Sequence[str]) -> list[Reference]:
    """The validation items with these keys, in the order of `keys`.

    Raises:
        UserError: a shard is missing or damaged, or no shard has an item.
    """
    references = {
        sample.key: Reference(sample.image, sample.captions[0])
        for sample in read_split(shards, "validation", keys=set(keys))
    }
    if missing := [key for key in keys if key not in references]:
        raise UserError(
            f"{shards} has no validation item {missing[0]} (and {len(missing) - 1} more): "
            "the images were generated from other shards; make shards and images again"
        )
    return [references[key] for key in keys]


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """An image resized to `side` x `side` pixels with a smooth (Lanczos) filter."""
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)

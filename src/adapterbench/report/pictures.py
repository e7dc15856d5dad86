"""The pictures of the grids: generated ones from the sample tars, references from the shards."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.formats.image import BadImageError, decode
from adapterbench.formats.shards import read_split
from adapterbench.formats.tars import BadFileError, BadTarError, Tar, open_tar
from adapterbench.report.methods import stage


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


def sampled_keys(tar: Path) -> set[str]:
    """Keys of the items in a tar of `<key>.<k>.png`."""
    return {key for key, _ in sampled(tar)}


def sampled(tar: Path) -> list[tuple[str, int]]:
    """Key and `k` of each picture in a tar of `<key>.<k>.png`, in order."""
    with opened(tar) as members:
        names = [name.rsplit(".", 2) for name in members.members if name.endswith(".png")]
    return [(key, int(k)) for key, k, _ in names]


def read_samples(tar: Path, keys: Sequence[str], k: int = 0) -> list[Image.Image]:
    """The `k`-th picture of each key.

    Raises:
        UserError: the tar is missing or damaged, or lacks a picture.
    """
    with opened(tar) as members:
        return [read_member(members, f"{key}.{k}.png", tar) for key in keys]


def read_member(members: Tar, name: str, tar: Path) -> Image.Image:
    """Decode one member."""
    again = f"run `dvc repro -f {stage('sample', tar.parent.name)}`"
    try:
        return decode(members.read(name))
    except KeyError as error:
        raise UserError(f"{tar} has no picture {name}: {again}") from error
    except (BadImageError, BadFileError) as error:
        raise UserError(f"picture {name} in {tar} is damaged ({error}): {again}") from error


@contextmanager
def opened(tar: Path) -> Iterator[Tar]:
    """Open a tar of samples for reading."""
    again = f"run `dvc repro {stage('sample', tar.parent.name)}`"
    try:
        with open_tar(tar) as members:
            yield members
    except FileNotFoundError as error:
        raise UserError(f"{tar} is missing: {again}") from error
    except BadTarError as error:
        raise UserError(f"{tar} is damaged ({error}): delete it and {again}") from error


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
            "the samples were made from other shards; run `dvc repro`"
        )
    return [found[key] for key in keys]


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """A picture of `side` pixels for print; small ones are enlarged smoothly, not in blocks."""
    return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)

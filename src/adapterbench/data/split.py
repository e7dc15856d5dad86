"""Splits of the samples into training and validation."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from adapterbench.core.config import DataParams
from adapterbench.core.documents import Document, read_document
from adapterbench.core.errors import UserError
from adapterbench.core.seeds import rank
from adapterbench.data.sample import RawSample
from adapterbench.formats.listings import Listed
from adapterbench.formats.shards import Packed

Usable = Packed | Listed
"""A sample as stored in a shard: packed, or listed with its place in a tar."""
Clean = Callable[[Iterable[RawSample]], Iterator[Usable]]
Splits = Iterator[tuple[str, Iterable[Usable]]]
Drop = Callable[[str, str], None]
"""Called with (key, cause) of a dropped sample."""

TRAIN = "train"
ADD_IMAGES = "set data.fetch to more images"


class TooFewError(UserError):
    """Too few images are usable; has the cause, and a remedy besides correcting dropped images."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause, self.remedy = cause, remedy


class HeldOut(Document):
    """A committed list of held-out images."""

    splits: dict[str, dict[str, tuple[str, ...]]]
    """By split and concept, the families of makers whose images of the concept are held out."""
    twins: dict[str, str]
    """By key, held-out images that nearly equal a training image; they are not scored."""

    def split_of(self, sample: Usable) -> str:
        """The split that a sample belongs to."""
        concept, family = sample.meta["concept"], sample.meta["family"]
        for name, concepts in self.splits.items():
            if family in concepts.get(concept, ()):
                return name
        return TRAIN


def split(raw: Iterable[RawSample], clean: Clean, params: DataParams, drop: Drop) -> Splits:
    """The usable samples of each split by `params.split`, in hashed order within a split.

    With `split: source` the order is that of the source, and one image is in memory at a time.
    """
    if params.split == "source":
        return source_split(raw, clean)
    samples = sorted(clean(raw), key=lambda sample: rank(sample.key, params.seed))
    if params.split == "images":
        splits = by_image(samples, read_held_out(params.held_out or ""), drop)
    else:
        splits = by_concept(samples, params.validation_concepts or 0, params.seed)
    if params.images_per_concept:
        splits[TRAIN] = capped(splits[TRAIN], params.images_per_concept, drop)
    return iter(splits.items())


def source_split(raw: Iterable[RawSample], clean: Clean) -> Splits:
    """The splits of the source, one after the other.

    Raises:
        UserError: the source has no split.
    """
    for name, samples in groupby(raw, key=attrgetter("split")):
        if name is None:
            raise UserError(
                "data.split = source, but this source has no split of its own: "
                "set data.split: concepts and data.validation_concepts"
            )
        yield name, clean(samples)


def by_concept(samples: list[Usable], held_out: int, seed: int) -> dict[str, list[Usable]]:
    """Splits with `held_out` whole concepts, chosen by hash, for validation.

    Raises:
        TooFewError: there are not more concepts than `held_out`.
    """
    concepts = {sample.meta["concept"] for sample in samples}
    if len(concepts) < 2:
        raise TooFewError(
            f"the usable images show {len(concepts)} concepts of at least 2", ADD_IMAGES
        )
    if len(concepts) <= held_out:
        raise TooFewError(
            f"data.validation_concepts = {held_out}, but there are only {len(concepts)} concepts "
            "with usable images",
            "lower it so that some are left to train on",
        )
    validation = set(sorted(concepts, key=lambda c: rank(c, seed))[:held_out])
    splits: dict[str, list[Usable]] = {TRAIN: [], "validation": []}
    for sample in samples:
        splits["validation" if sample.meta["concept"] in validation else TRAIN].append(sample)
    return splits


def by_image(samples: list[Usable], held_out: HeldOut, drop: Drop) -> dict[str, list[Usable]]:
    """Splits by a list of held-out images; those with a near-duplicate in training are dropped.

    Raises:
        UserError: the source does not give the family of makers of an image.
    """
    splits: dict[str, list[Usable]] = {name: [] for name in (TRAIN, *held_out.splits)}
    for sample in samples:
        if "family" not in sample.meta:
            raise UserError(
                f"data.split = images, but {sample.key} has no family of makers: "
                "set data.split: concepts for this source"
            )
        if sample.key in held_out.twins:
            drop(sample.key, "held out, but with a twin among the training images")
        else:
            splits[held_out.split_of(sample)].append(sample)
    return {name: rows for name, rows in splits.items() if rows or name == TRAIN}


def capped(samples: list[Usable], limit: int, drop: Drop) -> list[Usable]:
    """The first `limit` samples of each concept; the others are dropped."""
    kept: dict[str, list[Usable]] = defaultdict(list)
    for sample in samples:
        rows = kept[sample.meta["concept"]]
        if len(rows) < limit:
            rows.append(sample)
        else:
            drop(sample.key, "beyond images_per_concept")
    chosen = {sample.key for rows in kept.values() for sample in rows}
    return [sample for sample in samples if sample.key in chosen]


def read_held_out(path: str) -> HeldOut:
    """Read the list of held-out images.

    Raises:
        UserError: the file is missing or not such a list.
    """
    remedy = "run `make hold-out`, or correct data.held_out"
    return read_document(HeldOut, Path(path), "a list of held-out images", remedy)

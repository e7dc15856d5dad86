"""One captioned image on its way from a source to a shard."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from adapterbench.core.errors import InputError
from adapterbench.formats.image import SUFFIXES
from adapterbench.formats.tars import BadFileError, BadTarError, Place, Record, read_records

SPLITS = ("train", "validation")
"""In this order a source with a split of its own reads its samples; every data set has both."""
KEPT = ("path", "url")
"""Facts of a tar's `.json` that say where an image came from."""
PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Keys that every reader of webdataset tars and every file system takes as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """An image as its source published it, before it is decoded."""

    key: str
    """Its name, which no other image of the source has."""
    concept: str | None = None
    """What it shows; all images of a concept fall on one side of the split. None: its own."""
    image: bytes = b""
    """An encoded image file (PNG, JPEG, WebP)."""
    captions: tuple[str, ...] = ()
    """Phrasings of its caption; the first is the one that is scored."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Further facts, kept in the sample's `.json`."""
    split: str | None = None
    """One of `SPLITS` where the source has a split of its own."""
    problem: str = "no picture in the set"
    """Why `image` is empty, where it is; the manifest counts these causes."""
    tar: Path | None = None
    """The tar, not compressed, in which `image` lies; it stays there. None: it is packed."""
    place: Place | None = None
    """Where it lies in `tar`."""


def plain_key(name: str) -> str:
    """The key of a sample of any name: the name itself where it is `PLAIN`."""
    return name if PLAIN.fullmatch(name) else digest_key(name, name)


def digest_key(words: str, name: str) -> str:
    """A plain key for `name` by which people know it, such as `tom-1f2e3d4c`.

    It depends on the two alone, so that more images move no other between the splits.
    """
    shown = re.sub(r"[^A-Za-z0-9_]+", "-", words).strip("-")
    digest = sha256(name.encode(errors="surrogatepass"))  # names of files may be no Unicode
    return f"{shown[:60]}-{digest.hexdigest()[:8]}"


def read_tars(raw: Path) -> Iterator[RawSample]:
    """Yield the samples of `raw/<split>/*.tar`, one split after the other, tars by name."""
    for split in SPLITS:
        for path in sorted((raw / split).glob("*.tar")):
            yield from read_tar(path, prefix=f"{path.stem}-", split=split)


def read_tar(path: Path, prefix: str = "", split: str | None = None) -> Iterator[RawSample]:
    """Yield the samples of a webdataset tar in order; one is held in memory at a time.

    A sample is an image and a `.txt` whose lines are its phrasings. A `.json` may give its
    `concept`, and the `problem` why it has no image.

    Args:
        path: the tar.
        prefix: goes before every key, so that keys of several tars differ.
        split: see `RawSample`.

    Raises:
        UserError: the tar is missing, truncated or damaged.
    """
    try:
        for record in read_records(path, (*SUFFIXES, "txt", "json")):
            for sample in raw_samples(record, prefix + record.name, split):
                yield replace(sample, tar=path) if sample.place else sample
    except (BadTarError, FileNotFoundError) as error:
        raise InputError(f"{path} is missing, truncated or damaged ({error})", path) from error


def raw_samples(record: Record, name: str, split: str | None) -> Iterator[RawSample]:
    """The sample of a record; further images of it, which have no caption of their own, too."""
    kinds = [kind for kind in SUFFIXES if kind in record]
    try:
        yield raw_sample(record, kinds[0] if kinds else "", name, split)
    except BadFileError as error:
        yield RawSample(key=name, split=split, problem=str(error))
    for kind in kinds[1:]:
        problem = "another image of the same name is taken"
        yield RawSample(key=f"{name}.{kind}", split=split, problem=problem)


def raw_sample(record: Record, kind: str, name: str, split: str | None) -> RawSample:
    """A record, whose image is of a `kind`, as a sample.

    Raises:
        BadFileError: a file of it cannot be used.
    """
    image = record.read(kind)
    if image == b"":
        raise BadFileError("empty file")
    facts = record.facts()
    concept = facts.get("concept")
    return RawSample(
        key=name,
        # JSON can hold halves of characters, which no file can
        concept=str(concept).encode(errors="replace").decode() if concept else None,
        image=image or b"",
        captions=phrasings(record.caption()),
        meta={name: facts[name] for name in KEPT if isinstance(facts.get(name), str)},
        split=split,
        problem=str(facts.get("problem") or "no picture file"),
        place=record.places.get(kind),
    )


def phrasings(text: str) -> tuple[str, ...]:
    """The lines of a caption that are not empty."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())

"""Captioned images as sources yield them."""

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
"""The splits, in the order in which a source with its own split yields them."""
KEPT = ("path", "url")
"""Fields of a tar's `.json` that give the origin of an image."""
PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""Keys that all readers of webdataset tars and all file systems accept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """An image as its source published it, before it is decoded."""

    key: str
    """Unique name within the source."""
    concept: str | None = None
    """What it shows; a split by concepts keeps a concept together. None: unique to the image."""
    image: bytes = b""
    """An encoded image file (PNG, JPEG, WebP)."""
    captions: tuple[str, ...] = ()
    """Phrasings of its caption; the first is the one that is scored."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Further metadata, stored in the sample's `.json`."""
    split: str | None = None
    """One of `SPLITS`, if the source has its own split."""
    problem: str = "no image in the set"
    """Why `image` is empty; the manifest counts these causes."""
    tar: Path | None = None
    """The uncompressed tar that holds `image`, which stays there; None: it is packed."""
    place: Place | None = None
    """Byte range of `image` in `tar`."""


def plain_key(name: str) -> str:
    """The key for a name: the name itself if it is `PLAIN`, else `digest_key`."""
    return name if PLAIN.fullmatch(name) else digest_key(name, name)


def digest_key(words: str, name: str) -> str:
    """A readable plain key for `name`, such as `tom-1f2e3d4c`.

    It depends only on the arguments, so adding images does not move others between the splits.
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", words).strip("-")
    digest = sha256(name.encode(errors="surrogatepass"))  # file names may be invalid Unicode
    return f"{readable[:60]}-{digest.hexdigest()[:8]}"


def read_tars(raw: Path) -> Iterator[RawSample]:
    """Yield the samples of `raw/<split>/*.tar`, split by split, tars sorted by name."""
    for split in SPLITS:
        for path in sorted((raw / split).glob("*.tar")):
            yield from read_tar(path, prefix=f"{path.stem}-", split=split)


def read_tar(path: Path, prefix: str = "", split: str | None = None) -> Iterator[RawSample]:
    """Yield the samples of a webdataset tar in order; one is held in memory at a time.

    A sample is an image and a `.txt` whose lines are its phrasings. A `.json` may give its
    `concept`, and the `problem` why it has no image.

    Args:
        path: the tar.
        prefix: of every key, so that keys of different tars differ.
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
    """The sample of a record, then its further images as unusable samples."""
    kinds = [kind for kind in SUFFIXES if kind in record]
    try:
        yield raw_sample(record, kinds[0] if kinds else "", name, split)
    except BadFileError as error:
        yield RawSample(key=name, split=split, problem=str(error))
    for kind in kinds[1:]:
        problem = "another image of the same name is taken"
        yield RawSample(key=f"{name}.{kind}", split=split, problem=problem)


def raw_sample(record: Record, kind: str, name: str, split: str | None) -> RawSample:
    """A record, whose image has the extension `kind`, as a sample.

    Raises:
        BadFileError: one of its files cannot be used.
    """
    image = record.read(kind)
    if image == b"":
        raise BadFileError("empty file")
    facts = record.facts()
    concept = facts.get("concept")
    return RawSample(
        key=name,
        # JSON may hold lone surrogates, which UTF-8 cannot encode
        concept=str(concept).encode(errors="replace").decode() if concept else None,
        image=image or b"",
        captions=phrasings(record.caption()),
        meta={name: facts[name] for name in KEPT if isinstance(facts.get(name), str)},
        split=split,
        problem=str(facts.get("problem") or "no image file"),
        place=record.places.get(kind),
    )


def phrasings(text: str) -> tuple[str, ...]:
    """The non-empty lines of a caption."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())

"""webdataset shards: `key.png`, `key.txt` (the caption), `key.json` (everything else)."""

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import webdataset as wds
from PIL import Image
from pydantic import Field

from adapterbench.core.documents import Document, FileName, Sha256, read_document
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.core.files import MANIFEST, check_digest, sha256
from adapterbench.formats.image import SUFFIXES, BadImageError, decode
from adapterbench.formats.tars import BadTarError, Record, read_records


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A captioned picture of a shard."""

    key: str
    image: Image.Image
    """RGB."""
    captions: tuple[str, ...]
    """Phrasings; the first is the one that is scored."""
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as its manifest has it."""

    path: Path
    samples: int
    """How many it holds."""
    sha256: str | None = None
    """Digest of the file, where it is known."""


class ShardRow(Document):
    """A shard in a manifest."""

    name: FileName
    samples: Annotated[int, Field(ge=0)]
    sha256: Sha256 | None = None


class Split(Document):
    """The shards of a split, in order."""

    shards: list[ShardRow]


class Manifest(Document):
    """What `manifest.json` says of shards, as far as others than people read it."""

    splits: dict[str, Split]
    attribution: dict[str, str] = Field(default_factory=dict)
    """Makers and licences of the images, by set."""


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Write samples as one tar, the same bytes for the same samples; return its manifest row."""
    count = 0
    with wds.TarWriter(str(path), mtime=0) as tar:
        for sample in samples:
            png = BytesIO()
            sample.image.save(png, "PNG")
            facts = {**sample.meta, "captions": list(sample.captions)}
            tar.write(
                {
                    "__key__": sample.key,
                    "png": png.getvalue(),
                    "txt": sample.captions[0].encode(),
                    "json": json.dumps(facts, sort_keys=True).encode(),
                }
            )
            count += 1
    return {"name": path.name, "samples": count, "sha256": sha256(path)}


def read_manifest(folder: Path) -> Manifest:
    """What stage `prepare` says of the shards in `folder`.

    Raises:
        UserError: the manifest is missing or has another structure.
    """
    return read_document(Manifest, folder / MANIFEST, "a manifest of shards")


def find_shards(folder: Path, split: str) -> list[Shard]:
    """The shards of a split, in order, as the manifest lists them.

    Raises:
        UserError: the manifest or a shard that it names is missing, or the split is unknown.
    """
    splits = read_manifest(folder).splits
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r} (it has {', '.join(splits)})")
    rows = splits[split].shards
    shards = [Shard(folder / row.name, row.samples, row.sha256) for row in rows]
    for shard in shards:
        if not shard.path.is_file():
            raise InputError(f"shard {shard.path} is missing", shard.path)
    return shards


def read_shard(shard: Shard, on_bad: list[dict[str, str]] | None = None) -> Iterator[Sample]:
    """Yield a shard's samples in order.

    An image that cannot be decoded is appended to `on_bad` as `{key, cause}` and skipped; where
    `on_bad` is None it is an error.

    Raises:
        UserError: the tar is damaged or has another number of samples, or a bad image when
            `on_bad` is None.
    """
    with intact(shard):
        for record in read_whole(shard, (*SUFFIXES, "txt", "json")):
            try:
                yield to_sample(record)
            except BadImageError as error:
                if on_bad is None:
                    cause = f"image {record.name} in {shard.path} is corrupt ({error})"
                    raise InputError(cause, shard.path) from error
                on_bad.append({"key": record.name, "cause": str(error)})


def read_captions(shard: Shard) -> Iterator[tuple[str, ...]]:
    """Yield the phrasings of each sample of a shard; no image is read.

    Raises:
        UserError: the tar is damaged or has another number of samples.
    """
    with intact(shard):
        for record in read_whole(shard, ("txt", "json")):
            yield texts(record)[0]


def read_split(
    folder: Path, split: str, on_bad: list[dict[str, str]] | None = None
) -> Iterator[Sample]:
    """Yield the samples of all shards of a split, in order."""
    for shard in find_shards(folder, split):
        yield from read_shard(shard, on_bad)


@contextmanager
def intact(shard: Shard) -> Iterator[None]:
    """Say how to mend a shard whose reading fails in the block."""
    try:
        yield
    except (OSError, ValueError) as error:
        cause = f"shard {shard.path} is truncated or damaged ({one_line(error)})"
        raise InputError(cause, shard.path) from error


def read_whole(shard: Shard, kinds: Collection[str]) -> Iterator[Record]:
    """Yield the records of a shard.

    Raises:
        ValueError: its digest is another, or there are not as many as the manifest says.
    """
    if shard.sha256:
        check_digest(shard.path, shard.sha256)
    count = 0
    for record in read_records(shard.path, kinds):
        count += 1
        yield record
    if count != shard.samples:
        raise BadTarError(f"it has {count} samples, not {shard.samples} as its manifest says")


def to_sample(record: Record) -> Sample:
    """A record as a sample.

    Raises:
        BadImageError: its image is missing or cannot be decoded.
        ValueError: its text is damaged.
    """
    images = [kind for kind in SUFFIXES if kind in record]
    image = decode(record.read(images[0]) or b"" if images else b"")
    phrasings, facts = texts(record)
    return Sample(key=record.name, image=image, captions=phrasings, meta=facts)


def texts(record: Record) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The phrasings and the other facts of a sample; other tools write one caption, as `.txt`.

    Raises:
        ValueError: they are damaged.
    """
    facts = record.facts()
    captions = facts.pop("captions", None) or [record.caption()]
    if not (isinstance(captions, list) and all(isinstance(text, str) for text in captions)):
        raise ValueError(f"the captions of {record.name} are not a list of texts")
    return tuple(captions), facts

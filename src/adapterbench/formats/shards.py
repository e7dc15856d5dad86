"""Shards: the captioned images of a split, and the manifest that lists them.

A shard is a webdataset tar of `key.png` (or `.jpg`), `key.txt` (the caption) and `key.json`
(everything else), or a listing of images that stay in the source's tars (`listings`).
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import webdataset as wds
from PIL import Image
from pydantic import Field

from adapterbench.core.documents import Document, Sha256, read_document
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.core.files import MANIFEST, check_digest, sha256
from adapterbench.formats.image import SUFFIXES, BadImageError, decode, to_png
from adapterbench.formats.listings import open_listing
from adapterbench.formats.tars import (
    BadTarError,
    Parts,
    Record,
    Tar,
    open_tar,
    read_record,
    records,
)

TEXTS = ("txt", "json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A captioned image of a shard."""

    key: str
    image: Image.Image
    """RGB, square."""
    captions: tuple[str, ...]
    """Phrasings; the first is the one that is scored."""
    meta: dict[str, Any]
    whole: Image.Image | None = None
    """The image before it was cropped and scaled, RGB; None: not asked for."""

    def packed(self) -> "Packed":
        """The sample with its image encoded as PNG."""
        return Packed(self.key, "png", to_png(self.image), self.captions, self.meta)


@dataclass(frozen=True, slots=True)
class Packed:
    """A sample as a tar holds it."""

    key: str
    kind: str
    """One of `formats.image.SUFFIXES`, the extension of its image file."""
    image: bytes
    captions: tuple[str, ...]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as listed in its manifest."""

    path: Path
    samples: int
    """Number of samples."""
    sha256: str | None = None
    """Digest of the file, if known."""

    @property
    def holds_squares(self) -> bool:
        """Whether its images were cropped when it was written, as those of a tar are."""
        return self.path.suffix == ".tar"


class ShardRow(Document):
    """A shard in a manifest."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*\.(tar|json)$")]
    """Name of its file beside the manifest: a tar or a listing."""
    samples: Annotated[int, Field(ge=0)]
    sha256: Sha256 | None = None


class Split(Document):
    """The shards of a split, in order."""

    shards: list[ShardRow]


class Manifest(Document):
    """The fields of `manifest.json` that programs read."""

    splits: dict[str, Split]
    attribution: dict[str, str] = Field(default_factory=dict)
    """Makers and licences of the images, by set."""


def write_shard(path: Path, samples: Iterable[Packed]) -> dict[str, Any]:
    """Write samples as one tar, deterministically; return its manifest row."""
    count = 0
    with wds.TarWriter(str(path), mtime=0) as tar:
        for sample in samples:
            facts = {**sample.meta, "captions": list(sample.captions)}
            tar.write(
                {
                    "__key__": sample.key,
                    sample.kind: sample.image,
                    "txt": sample.captions[0].encode(),
                    "json": json.dumps(facts, sort_keys=True).encode(),
                }
            )
            count += 1
    return {"name": path.name, "samples": count, "sha256": sha256(path)}


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the shards in `folder`.

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


class Unread(Protocol):
    """A sample of an open shard that is not read yet."""

    @property
    def key(self) -> str:
        """Its key."""

    def texts(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Its phrasings and other facts."""

    def whole(self) -> Image.Image:
        """Its image, decoded, as it is stored."""

    def cropped(self, whole: Image.Image) -> Image.Image:
        """The square of the image that latents are made from."""


@dataclass(frozen=True, slots=True)
class Member:
    """A sample of a tar that is not read yet."""

    tar: Tar
    key: str
    parts: Parts

    def read(self, kinds: Collection[str]) -> Record:
        """Its files of some extensions."""
        return read_record(self.tar, self.key, [part for part in self.parts if part[0] in kinds])

    def texts(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """See `texts`."""
        return texts(self.read(TEXTS))

    def whole(self) -> Image.Image:
        """Its image, which stage `prepare` packed as a square.

        Raises:
            BadImageError: it is missing or cannot be decoded.
            ValueError: it is there twice.
        """
        record = self.read(SUFFIXES)
        kinds = [kind for kind in SUFFIXES if kind in record]
        return decode(record.read(kinds[0]) or b"" if kinds else b"")

    def cropped(self, whole: Image.Image) -> Image.Image:
        """The image as it is."""
        return whole


@contextmanager
def open_packed(path: Path) -> Iterator[list[Member]]:
    """The samples of a tar.

    Raises:
        ValueError: it is not whole.
    """
    with open_tar(path) as tar:
        by_name = records(tar, (*SUFFIXES, *TEXTS))
        yield [Member(tar, name, parts) for name, parts in by_name.items()]


OPENERS: dict[str, Callable[[Path], AbstractContextManager[Sequence[Unread]]]] = {
    ".tar": open_packed,
    ".json": open_listing,
}
"""Openers by the extension of a shard."""


class OpenShard:
    """A shard with random access to its samples."""

    def __init__(self, shard: Shard, samples: Sequence[Unread]) -> None:
        self.shard, self.samples = shard, samples

    def read(
        self,
        numbers: Iterable[int],
        on_bad: list[dict[str, str]] | None = None,
        keep_whole: bool = False,
    ) -> Iterator[Sample]:
        """Yield the samples of these numbers, with `whole` if asked for; see `read_shard`."""
        with input_errors(self.shard):
            for sample in (self.samples[number] for number in numbers):
                try:
                    whole = sample.whole()
                    image, (captions, meta) = sample.cropped(whole), sample.texts()
                except BadImageError as error:
                    if on_bad is None:
                        cause = f"image {sample.key} in {self.shard.path} is corrupt ({error})"
                        raise InputError(cause, self.shard.path) from error
                    on_bad.append({"key": sample.key, "cause": str(error)})
                else:
                    yield Sample(
                        key=sample.key,
                        image=image,
                        captions=captions,
                        meta=meta,
                        whole=whole if keep_whole else None,
                    )


@contextmanager
def open_shard(shard: Shard) -> Iterator[OpenShard]:
    """Open a shard.

    Raises:
        UserError: it is missing or damaged, or has another number of samples.
    """
    with ExitStack() as stack:
        with input_errors(shard):
            if shard.sha256:
                check_digest(shard.path, shard.sha256)
            samples = stack.enter_context(OPENERS[shard.path.suffix](shard.path))
            if len(samples) != shard.samples:
                raise BadTarError(
                    f"it has {len(samples)} samples, not {shard.samples} as its manifest says"
                )
        yield OpenShard(shard, samples)


def read_shard(
    shard: Shard,
    on_bad: list[dict[str, str]] | None = None,
    keys: Collection[str] | None = None,
) -> Iterator[Sample]:
    """Yield a shard's samples in order.

    An image that cannot be used is appended to `on_bad` as `{key, cause}` and skipped; where
    `on_bad` is None it is an error.

    Args:
        shard: as listed in its manifest.
        on_bad: see above.
        keys: of the samples to read; no other image is decoded. None: all.

    Raises:
        UserError: the shard, or a tar that it lists, is damaged; it has another number of samples;
            or a bad image when `on_bad` is None.
    """
    with open_shard(shard) as opened:
        wanted = [n for n, s in enumerate(opened.samples) if keys is None or s.key in keys]
        yield from opened.read(wanted, on_bad)


def read_captions(shard: Shard) -> Iterator[tuple[str, ...]]:
    """Yield the phrasings of each sample of a shard; no image is read.

    Raises:
        UserError: the shard is damaged or has another number of samples.
    """
    with open_shard(shard) as opened, input_errors(shard):
        for sample in opened.samples:
            yield sample.texts()[0]


def read_split(
    folder: Path,
    split: str,
    on_bad: list[dict[str, str]] | None = None,
    keys: Collection[str] | None = None,
) -> Iterator[Sample]:
    """Yield the samples of all shards of a split, in order; see `read_shard`."""
    for shard in find_shards(folder, split):
        yield from read_shard(shard, on_bad, keys)


@contextmanager
def input_errors(shard: Shard) -> Iterator[None]:
    """Raise an `InputError` for a shard if reading it fails in the block."""
    try:
        yield
    except (OSError, ValueError) as error:
        cause = f"shard {shard.path} is truncated or damaged ({one_line(error)})"
        raise InputError(cause, shard.path) from error


def texts(record: Record) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The phrasings and metadata of a sample; other tools write a single caption, as `.txt`.

    Raises:
        ValueError: they are damaged.
    """
    facts = record.facts()
    captions = facts.pop("captions", None) or [record.caption()]
    if not (isinstance(captions, list) and all(isinstance(text, str) for text in captions)):
        raise ValueError(f"the captions of {record.name} are not a list of texts")
    return tuple(captions), facts

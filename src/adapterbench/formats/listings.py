"""Listings: shards whose images stay in the source's tars.

`<split>-00000.json` gives the tar, byte range and digest of each sample's image file, its captions
and metadata. The image is cropped and scaled when it is read.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from adapterbench.core.config import Count
from adapterbench.core.documents import Document, Sha256, read_document
from adapterbench.core.errors import InputError
from adapterbench.core.files import write_json
from adapterbench.formats.image import BadImageError, decode, is_blank, square
from adapterbench.formats.tars import MAX_BYTES, Place


class Listed(Document):
    """A sample whose image stays in a tar of the source."""

    key: str
    tar: str
    """Path below the listing's `root`."""
    offset: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=0, le=MAX_BYTES)]
    sha256: Sha256
    """Digest of the image file."""
    captions: Annotated[list[str], Field(min_length=1)]
    """Phrasings; the first is the one that is scored."""
    meta: dict[str, Any]

    @property
    def place(self) -> Place:
        """Where the image file lies in its tar."""
        return Place(self.offset, self.size)


class Listing(Document):
    """Content of `<split>-00000.json`."""

    root: str
    """Folder of the tars, relative to that of the listing."""
    resolution: Count
    """Side of the cropped and scaled image, pixels."""
    samples: list[Listed]


@dataclass(frozen=True, slots=True)
class LazySample:
    """A sample of a listing, whose image is read on demand."""

    row: Listed
    root: Path
    side: int

    @property
    def key(self) -> str:
        """Its key."""
        return self.row.key

    def texts(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Its phrasings and metadata."""
        return tuple(self.row.captions), self.row.meta

    def whole(self) -> Image.Image:
        """Its image, as the tar holds it.

        Raises:
            BadImageError: it cannot be decoded.
            UserError: its tar is missing or has changed.
        """
        return decode(read_file(self.root / self.row.tar, self.row))

    def cropped(self, whole: Image.Image) -> Image.Image:
        """The centre square of the image at the resolution of the listing.

        Raises:
            BadImageError: it has one colour.
        """
        image = square(whole, self.side)
        if is_blank(image):
            raise BadImageError("blank image")
        return image


def read_file(tar: Path, row: Listed) -> bytes:
    """Read the image file of a sample and check its digest.

    Raises:
        UserError: the tar is missing, cannot be read or has changed.
    """
    try:
        with tar.open("rb") as file:
            file.seek(row.offset)
            data = file.read(row.size)
    except OSError as error:
        cause = f"{tar}, which holds the image of {row.key}, cannot be read ({error.strerror})"
        raise InputError(cause, tar) from error
    if sha256(data).hexdigest() != row.sha256:
        raise InputError(f"{tar} has changed since its images were listed ({row.key} differs)", tar)
    return data


def write_listing(
    path: Path, root: str, resolution: int, samples: Iterable[Listed]
) -> dict[str, Any]:
    """Write a listing; return its manifest row.

    Args:
        path: of the listing.
        root: see `Listing`.
        resolution: see `Listing`.
        samples: in order.
    """
    rows = [sample.model_dump() for sample in samples]
    write_json(path, {"root": root, "resolution": resolution, "samples": rows})
    digest = sha256(path.read_bytes()).hexdigest()
    return {"name": path.name, "samples": len(rows), "sha256": digest}


@contextmanager
def open_listing(path: Path) -> Iterator[list[LazySample]]:
    """The samples of a listing.

    Raises:
        UserError: it is missing or damaged.
    """
    listing = read_document(Listing, path, "a listing of images")
    # without resolving links: the folder of the listing itself may be one
    root = Path(os.path.normpath(path.parent / listing.root))
    yield [LazySample(row, root, listing.resolution) for row in listing.samples]

"""Listings: shards whose images stay in the tars that they came in.

`<split>-00000.json` says of each sample in which tar its image file lies, at which bytes and with
which digest, and what else is known of it. The image is cut and scaled when it is read.
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
    """A sample whose image lies in a tar."""

    key: str
    tar: str
    """Path below the listing's `root`."""
    offset: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=0, le=MAX_BYTES)]
    sha256: Sha256
    """Of the image file."""
    captions: Annotated[list[str], Field(min_length=1)]
    """Phrasings; the first is the one that is scored."""
    meta: dict[str, Any]

    @property
    def place(self) -> Place:
        """Where the image file lies in its tar."""
        return Place(self.offset, self.size)


class Listing(Document):
    """What `<split>-00000.json` holds."""

    root: str
    """Folder of the tars, from that of the listing."""
    resolution: Count
    """Side of the square that is cut out of each image and scaled, pixels."""
    samples: list[Listed]


@dataclass(frozen=True, slots=True)
class Reference:
    """A sample of a listing that is not read yet."""

    row: Listed
    root: Path
    side: int

    @property
    def key(self) -> str:
        """Its key."""
        return self.row.key

    def texts(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Its phrasings and other facts."""
        return tuple(self.row.captions), self.row.meta

    def image(self) -> Image.Image:
        """Its image, square.

        Raises:
            BadImageError: it cannot be decoded, or has one colour.
            UserError: its tar is missing or has changed.
        """
        image = square(decode(read_file(self.root / self.row.tar, self.row)), self.side)
        if is_blank(image):
            raise BadImageError("blank picture")
        return image


def read_file(tar: Path, row: Listed) -> bytes:
    """The image file of a sample.

    Raises:
        UserError: the tar is missing or cannot be read, or has other bytes there.
    """
    try:
        with tar.open("rb") as file:
            file.seek(row.offset)
            data = file.read(row.size)
    except OSError as error:
        cause = f"{tar}, which has the image of {row.key}, cannot be read ({error.strerror})"
        raise InputError(cause, tar) from error
    if sha256(data).hexdigest() != row.sha256:
        raise InputError(
            f"{tar} has changed since its images were listed (that of {row.key} is another)", tar
        )
    return data


def write_listing(
    path: Path, root: str, resolution: int, samples: Iterable[Listed]
) -> dict[str, Any]:
    """Write a listing; return its manifest row.

    Args:
        path: of the listing.
        root: see `Listing`.
        resolution: see `Listing`.
        samples: what it lists, in order.
    """
    rows = [sample.model_dump() for sample in samples]
    write_json(path, {"root": root, "resolution": resolution, "samples": rows})
    digest = sha256(path.read_bytes()).hexdigest()
    return {"name": path.name, "samples": len(rows), "sha256": digest}


@contextmanager
def open_listing(path: Path) -> Iterator[list[Reference]]:
    """The samples of a listing.

    Raises:
        UserError: it is missing or damaged.
    """
    listing = read_document(Listing, path, "a listing of images")
    # by name: the folder of the listing itself may be a link
    root = Path(os.path.normpath(path.parent / listing.root))
    yield [Reference(row, root, listing.resolution) for row in listing.samples]

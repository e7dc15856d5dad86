"""All images of a session in a ZIP file, with their settings and the images that were given."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from adapterbench.core.errors import UserError
from adapterbench.demo.folder import Saved
from adapterbench.demo.settings import Settings
from adapterbench.demo.store import ImageStore, StoredImage

NAME = "adapterbench.zip"
SETTINGS = "settings.json"
INPUTS = "inputs"
"""Folder of the given images; a file's name is its digest."""


def write_archive(path: Path, images: Sequence[Saved], store: ImageStore) -> None:
    """Write the archive; given images that are no longer kept are left out.

    Raises:
        UserError: there are no images.
    """
    kept = [image for image in images if image.path.exists()]
    if not kept:
        raise UserError("There are no images yet: generate one")
    names = [f"{number:02d}-{image.path.name}" for number, image in enumerate(kept, 1)]
    listed = [
        {"file": name, **asdict(image.settings)} for name, image in zip(names, kept, strict=True)
    ]
    with ZipFile(path, "w", ZIP_STORED) as archive:  # PNG is compressed already
        for name, image in zip(names, kept, strict=True):
            archive.write(image.path, name)
        for stored in dict.fromkeys(given(image.settings for image in kept)):
            if stored in store:
                archive.writestr(f"{INPUTS}/{stored.sha256}.png", store.png(stored))
        archive.writestr(SETTINGS, json.dumps(listed, indent=2, ensure_ascii=False) + "\n")


def given(settings: Iterable[Settings]) -> Iterable[StoredImage]:
    """The images and masks that were given; captions, which may differ, are left out."""
    for each in settings:
        for image in (*each.images, each.negative_image, each.control):
            if image:
                yield StoredImage("", image.sha256)
        for image in each.images:
            if image.mask:
                yield StoredImage("", image.mask)

"""Images that visitors chose: references, masks, control images; in memory, by their digest."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from threading import Lock

from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.formats.image import decode

MAX_BYTES = 256 * 2**20
"""Most bytes of all images, as PNG: at least 80 of the largest."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Name of a kept image; sessions hold these, not the images."""

    caption: str
    """Caption or file name."""
    sha256: str
    """Digest of its PNG file, which `ImageStore` has."""


class ImageStore:
    """Images of all sessions; those that were not used for longest go when the limit is exceeded.

    So what all sessions together can occupy is bounded, and an image that several use is kept once.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.files = OrderedDict[str, bytes]()
        self.size = 0
        self.lock = Lock()

    def put(self, image: Image.Image, caption: str) -> StoredImage:
        """Keep an image."""
        file = BytesIO()
        image.save(file, "PNG", compress_level=1)
        data = file.getvalue()
        stored = StoredImage(caption, hashlib.sha256(data).hexdigest())
        with self.lock:
            self.size += len(data) - len(self.files.get(stored.sha256, b""))
            self.files[stored.sha256] = data
            self.files.move_to_end(stored.sha256)
            while self.size > self.max_bytes and len(self.files) > 1:
                _, oldest = self.files.popitem(last=False)
                self.size -= len(oldest)
        return stored

    def __contains__(self, stored: StoredImage) -> bool:
        """Whether an image is still kept."""
        return stored.sha256 in self.files

    def png(self, stored: StoredImage) -> bytes:
        """The image's file.

        Raises:
            UserError: it is no longer kept.
        """
        with self.lock:
            if stored.sha256 not in self.files:
                raise UserError(f"{stored.caption} is no longer kept: choose it again")
            self.files.move_to_end(stored.sha256)
            return self.files[stored.sha256]

    def image(self, stored: StoredImage) -> Image.Image:
        """The image, RGB.

        Raises:
            UserError: it is no longer kept.
        """
        return decode(self.png(stored), ("PNG",))

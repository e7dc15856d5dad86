"""Pictures as the models take them: square, RGB, on white."""

from io import BytesIO

import numpy as np
from PIL import Image


class BadImageError(ValueError):
    """A picture that cannot be used; the message is the cause that reports count."""


MAX_PIXELS = 16_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB, transparent parts on white.

    Raises:
        BadImageError: not an image, truncated, or more than `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError("too many pixels")
            image.load()
            if image.mode == "RGB":
                return image.copy()
            rgba = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError("not a readable image") from error
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def square(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter edge to `side` pixels and crop the centre square."""
    if image.size == (side, side):
        return image
    factor = side / min(image.size)
    size = (max(side, round(image.width * factor)), max(side, round(image.height * factor)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel has the same colour."""
    return len(image.getcolors(2) or (0, 1)) == 1


def to_array(image: Image.Image) -> np.ndarray:
    """RGB picture -> uint8 array `(3, H, W)`."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

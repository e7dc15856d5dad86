"""Pictures as the models take them: square, RGB, on white."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps


class BadImageError(ValueError):
    """A picture that cannot be used; the message is the cause that reports count."""


MAX_PIXELS = 16_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB, upright as its camera says, transparent parts on white.

    Raises:
        BadImageError: not an image, truncated, or more than `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError("too many pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "RGB" and "transparency" not in upright.info:
                return upright
            rgba = upright.convert("RGBA")
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("too many pixels") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        raise BadImageError("not a readable image") from error
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def square(image: Image.Image, side: int) -> Image.Image:
    """Cut out the centre square and scale it to `side` pixels."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel has the same colour."""
    return len(image.getcolors(2) or (0, 1)) == 1


def to_array(image: Image.Image) -> np.ndarray:
    """RGB picture -> uint8 array `(3, H, W)`."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

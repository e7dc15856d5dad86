"""Images as the models take them: square, RGB, on white."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION


class BadImageError(ValueError):
    """An image that cannot be used; the message is the cause under which reports count it."""


KINDS = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif",),
}
"""Pillow's names of the accepted formats, with file extensions; of its forty others, one starts
Ghostscript."""
FORMATS = tuple(KINDS)
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
"""Extensions of image files, in order of preference where a sample has several."""
MAX_PIXELS = 16_000_000
"""Larger images are rejected before they are decoded (decompression bombs)."""
SCALED: dict[str, Callable[[Any], Any]] = {
    "L;2": lambda grey: 85 * grey,
    "L;4": lambda grey: 17 * grey,
    "RGB;16B": lambda rgb: tuple(value >> 8 for value in rgb),
}
"""Raw modes of PNG whose pixels Pillow scales to 8 bits, without the transparent colour."""
WHITE_IS_ZERO = 0
"""Photometric interpretation of a TIFF in which 0 is white."""


@contextmanager
def bad_image_errors() -> Iterator[None]:
    """Raise `BadImageError` for whatever Pillow raises on damaged bytes."""
    try:
        yield
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("too many pixels") from error
    except Exception as error:
        raise BadImageError("not a readable image") from error


@bad_image_errors()
def check(data: bytes) -> None:
    """Check by its header that a file is an image of at most `MAX_PIXELS`.

    Raises:
        BadImageError: it is not.
    """
    with opened(data, FORMATS):
        pass


@contextmanager
def opened(data: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open an image file; its format, one of `formats`, is recognised by its bytes.

    Raises:
        BadImageError: it has more than `MAX_PIXELS`.
    """
    with Image.open(BytesIO(data), formats=formats) as image:
        image.verify()  # the checksums of a PNG, which decoding does not check
    with Image.open(BytesIO(data), formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadImageError("too many pixels")
        yield image


@bad_image_errors()
def decode(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Decode an image file with `to_rgb`; of an animation, the first frame.

    Raises:
        BadImageError: it is no image, truncated, more than `MAX_PIXELS`, or see `to_rgb`.
    """
    with opened(data, formats) as image:
        return to_rgb(image)


@bad_image_errors()
def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB, rotated by its EXIF orientation, transparent parts on white.

    Raises:
        BadImageError: it is damaged, or its pixels are numbers of unknown range.
    """
    tiles = getattr(image, "tile", None)  # present in a file's image until it is decoded
    stored = tiles[0].args if tiles else None
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":
        upright = eight_bits(upright, getattr(image, "tag_v2", {}))
    elif "transparency" in upright.info and stored in SCALED:
        upright.info["transparency"] = SCALED[stored](upright.info["transparency"])
    if upright.mode == "RGB" and "transparency" not in upright.info:
        return upright
    rgba = upright.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Convert grey of 16 bits, or of floats up to 1, to 8 bits; Pillow would clip it at 255.

    Args:
        image: of mode `I;16`, `F` or the like.
        tags: of a TIFF.

    Raises:
        BadImageError: the pixels are 32-bit integers or other floats.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        white = 2 ** tags.get(BITSPERSAMPLE, [16])[0] - 1
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        white = 1
    else:
        raise BadImageError("pixel values of unknown range")
    grey = np.rint(values / white * 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


def square(image: Image.Image, side: int) -> Image.Image:
    """Cut out the centre square and scale it to `side` pixels."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def to_png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def to_webp(image: Image.Image) -> bytes:
    """An image as a WebP file without loss: smaller than PNG, and slower to write."""
    file = BytesIO()
    image.save(file, "WEBP", lossless=True, quality=80, method=4)
    return file.getvalue()


def is_jpeg(data: bytes) -> bool:
    """Whether the data begin with the signature of a JPEG."""
    return data.startswith(b"\xff\xd8\xff")


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel has the same colour."""
    return len(image.getcolors(2) or (0, 1)) == 1


def to_array(image: Image.Image) -> np.ndarray:
    """Image -> RGB uint8 array `(3, H, W)`."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

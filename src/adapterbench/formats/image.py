"""Pictures as the models take them: square, RGB, on white."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION


class BadImageError(ValueError):
    """A picture that cannot be used; the message is the cause that reports count."""


KINDS = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif",),
}
"""Pillow's names of what is decoded, with the files' extensions; it knows forty more formats, one
of which starts Ghostscript."""
FORMATS = tuple(KINDS)
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
"""Extensions of image files; of several images of a sample, the first of these is taken."""
MAX_PIXELS = 16_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""
SCALED: dict[str, Callable[[Any], Any]] = {
    "L;2": lambda grey: 85 * grey,
    "L;4": lambda grey: 17 * grey,
    "RGB;16B": lambda rgb: tuple(value >> 8 for value in rgb),
}
"""Kinds of PNG whose pixels Pillow scales to 8 bits, but not the colour that is transparent."""
WHITE_IS_ZERO = 0
"""What a TIFF says of a negative."""


@contextmanager
def readable() -> Iterator[None]:
    """Tell whatever Pillow raises on damaged bytes, as it opens a file or first reads its pixels.

    Raises:
        BadImageError: it raised something.
    """
    try:
        yield
    except BadImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError("too many pixels") from error
    except Exception as error:
        raise BadImageError("not a readable image") from error


@readable()
def check(data: bytes) -> None:
    """Refuse by its header alone a file that is no image, or a too large one.

    Raises:
        BadImageError: it is one of these.
    """
    with opened(data, FORMATS):
        pass


@contextmanager
def opened(data: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """Open an image file; its bytes say which of `formats` it is, whatever its name says.

    Raises:
        BadImageError: it has more than `MAX_PIXELS`.
    """
    with Image.open(BytesIO(data), formats=formats) as image:
        image.verify()  # the checksums of a PNG, which reading its pixels leaves out
    with Image.open(BytesIO(data), formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise BadImageError("too many pixels")
        yield image


@readable()
def decode(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Decode an image file as `to_rgb` has it; of an animation, its first frame.

    Raises:
        BadImageError: not an image, truncated, more than `MAX_PIXELS`, or see `to_rgb`.
    """
    with opened(data, formats) as image:
        return to_rgb(image)


@readable()
def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB, upright as its camera says, transparent parts on white.

    Raises:
        BadImageError: it is damaged, or its pixels are numbers of unknown range.
    """
    tiles = getattr(image, "tile", None)  # of a file, until it is read
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
    """Grey of 16 bits, or of floats up to 1, as 8 bits; Pillow itself cuts it off at 255.

    Args:
        image: of mode `I;16`, `F` or the like.
        tags: of a TIFF.

    Raises:
        BadImageError: integers of 32 bits or other floats.
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
    seen = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(seen)])


def square(image: Image.Image, side: int) -> Image.Image:
    """Cut out the centre square and scale it to `side` pixels."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def to_png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins as a JPEG does."""
    return data.startswith(b"\xff\xd8\xff")


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel has the same colour."""
    return len(image.getcolors(2) or (0, 1)) == 1


def to_array(image: Image.Image) -> np.ndarray:
    """RGB picture -> uint8 array `(3, H, W)`."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

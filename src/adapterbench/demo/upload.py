"""Pictures that people bring: bounded in bytes and in pixels before anything decodes them."""

from pathlib import Path

from adapterbench.core.errors import UserError
from adapterbench.formats.image import MAX_PIXELS, BadImageError, decode
from adapterbench.report.pictures import Reference

MAX_BYTES = 10 * 2**20
"""Of an uploaded file."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""Of an uploaded file."""
SIDE = 1024
"""Longest side that is kept, pixels: several times what any image encoder looks at."""
LIMITS = f"PNG, JPEG or WebP, up to {MAX_BYTES >> 20} MB and {MAX_PIXELS // 10**6} megapixels"


def read_upload(path: Path) -> Reference:
    """An uploaded picture as RGB on white; its caption is the file's name.

    Raises:
        UserError: too large, or not a picture.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path.name}: too many bytes. Use {LIMITS}")
    try:
        image = decode(path.read_bytes(), FORMATS)
    except BadImageError as error:
        raise UserError(f"{path.name}: {error}. Use {LIMITS}") from error
    image.thumbnail((SIDE, SIDE))
    return Reference(image, path.name)

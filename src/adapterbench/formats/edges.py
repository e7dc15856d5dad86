"""Edge maps, the condition of the small ControlNet."""

from PIL import Image, ImageChops, ImageFilter, ImageOps

from adapterbench.formats.image import square

THRESHOLD = 80
"""Least response (of 255) of a channel's Laplacian: keeps outlines, drops shading."""


def edge_map(image: Image.Image, side: int) -> Image.Image:
    """White outlines on black, `side` pixels square, of an image without transparency.

    The image is scaled to the model's resolution first: scaled edges would turn grey, unlike those
    that the ControlNet was trained on.
    """
    laplacian = square(image.convert("RGB"), side).filter(ImageFilter.FIND_EDGES)
    red, green, blue = laplacian.split()
    strongest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lines = strongest.point([255 * (value > THRESHOLD) for value in range(256)])
    # Pillow leaves the outermost pixels unfiltered
    return ImageOps.expand(ImageOps.crop(lines, 1), 1).convert("RGB")

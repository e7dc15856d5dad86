"""Edge maps: what the small ControlNet is given."""

from PIL import Image, ImageChops, ImageFilter, ImageOps

from adapterbench.formats.image import square

THRESHOLD = 80
"""Of the Laplacian of a channel, of 255: keeps outlines, drops shading."""


def edge_map(picture: Image.Image, side: int) -> Image.Image:
    """White outlines on black, `side` pixels square, of a picture in any mode but transparent.

    They are drawn at the size that the model paints at, after scaling: lines that are scaled
    themselves turn grey, which no ControlNet was trained on.
    """
    laplacian = square(picture.convert("RGB"), side).filter(ImageFilter.FIND_EDGES)
    red, green, blue = laplacian.split()
    strongest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lines = strongest.point([255 * (value > THRESHOLD) for value in range(256)])
    # Pillow leaves the outermost pixels unfiltered
    return ImageOps.expand(ImageOps.crop(lines, 1), 1).convert("RGB")

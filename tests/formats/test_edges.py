import numpy as np
from PIL import Image, ImageDraw

from adapterbench.formats.edges import edge_map


def square(side: int) -> Image.Image:
    """A dark square in the middle half of a white image."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).rectangle((side // 4, side // 4, 3 * side // 4, 3 * side // 4), "navy")
    return image


def test_outlines_are_white_on_black_at_the_asked_size() -> None:
    for side in (32, 128):  # scaled before they are drawn
        lines = np.asarray(edge_map(square(side), 32))
        assert lines.shape == (32, 32, 3)
        assert set(np.unique(lines)) == {0, 255}
        assert not lines[12:20, 12:20].any()
        assert not lines[:4].any()
        for row in (8, 24):
            assert lines[row - 1 : row + 2, 16].any()


def test_colours_of_one_brightness_have_an_edge_and_the_border_none() -> None:
    image = Image.new("RGB", (32, 32), (200, 0, 0))
    image.paste((0, 102, 0), (0, 0, 32, 16))  # the same grey
    lines = np.asarray(edge_map(image, 32))
    assert lines[15:17, 16].any()
    assert not lines[0].any()
    assert not lines[:, 0].any()
    assert not np.asarray(edge_map(Image.new("L", (32, 32), 255), 32)).any()

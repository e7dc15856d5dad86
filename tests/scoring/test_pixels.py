"""Colours and edges, against SciPy, formulas by hand and drawings whose agreement is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.linalg import sqrtm
from toy_backbone import SHAPES, SIDE, toy_image

from adapterbench.scoring.pixels import colour_distance, edge_f1, edge_f1_of, lab, share_near

ROOT = Path(__file__).parents[2]


def cielab(rgb: tuple[int, int, int]) -> np.ndarray:
    """CIELAB of a colour by the formulas of sRGB (IEC 61966-2-1), Bradford to D50, and CIE 1976."""
    values = np.array(rgb) / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    to_xyz = np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
    xyz = to_xyz @ linear / [0.96422, 1, 0.82521]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (200, 30, 40), (10, 90, 220)])
def test_pixels_are_in_cielab(rgb: tuple[int, int, int]) -> None:
    pixels = lab(Image.new("RGB", (2, 3), rgb))
    assert pixels.shape == (6, 3)
    assert pixels[0].numpy() == pytest.approx(cielab(rgb), abs=0.7)  # it is stored in bytes


def test_even_images_differ_by_delta_e() -> None:
    red, blue = (200, 30, 40), (10, 90, 220)
    images = [Image.new("RGB", (4, 4), colour) for colour in (red, red)]
    references = [Image.new("RGB", (4, 4), colour) for colour in (blue, red)]
    expected = np.linalg.norm(cielab(red) - cielab(blue))
    assert colour_distance(images, references).numpy() == pytest.approx([expected, 0], abs=1.2)


def test_the_distance_is_frechets_by_scipy() -> None:
    image, reference = (
        Image.open(ROOT / "docs/reference.png").convert("RGB"),
        toy_image("bar", "red"),
    )
    a, b = (lab(part.resize((32, 32))).numpy() for part in (image, reference))
    (m, c), (n, d) = ((x.mean(axis=0), np.cov(x.T, bias=True)) for x in (a, b))
    squared = ((m - n) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d)).real
    found = colour_distance([image.resize((32, 32))], [reference])
    assert found.numpy() == pytest.approx([np.sqrt(squared)])


def test_where_a_colour_is_does_not_count_for_colours_but_for_edges() -> None:
    image = toy_image("triangle", "green")
    turned = image.rotate(180)
    assert colour_distance([image], [turned]).item() == pytest.approx(0, abs=1e-4)
    assert edge_f1_of([image], [turned]).item() < 0.7
    recoloured = ImageOps.invert(image)
    assert colour_distance([image], [recoloured]).item() > 50
    assert edge_f1_of([image], [recoloured]).item() == pytest.approx(1)


def test_a_reference_of_another_size_is_scaled() -> None:
    image = toy_image("square", "red")
    large = image.resize((4 * SIDE, 4 * SIDE), Image.Resampling.BICUBIC)
    assert edge_f1_of([image], [large]).item() > 0.9
    assert colour_distance([image], [large]).item() < 2


def test_edges_are_compared_pair_by_pair() -> None:
    images = [toy_image(shape, "red") for shape in SHAPES]
    each = [edge_f1_of([a], [b]).item() for a, b in zip(images, reversed(images), strict=True)]
    assert edge_f1_of(images, images[::-1]).tolist() == pytest.approx(each)
    assert edge_f1_of(images, images).tolist() == pytest.approx([1] * len(images))


def test_edges_are_found_again_one_pixel_off() -> None:
    line = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    line[..., 2] = True
    beside = line.roll(1, dims=-1)
    away = line.roll(2, dims=-1)
    assert share_near(line, beside).tolist() == [1]
    assert share_near(line, away).tolist() == [0]
    assert share_near(torch.zeros_like(line), line).tolist() == [0]


def test_f1_by_hand() -> None:
    lines = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    lines[..., 4] = 255
    beside, far, half = (torch.zeros_like(lines) for _ in range(3))
    beside[..., 5] = far[..., 7] = half[:, :, :5, 4] = 255
    blank = torch.zeros_like(lines)
    others = torch.cat([lines, beside, far, half, blank])
    f1 = edge_f1(others, lines.expand_as(others))
    # of the half, all is met; of the whole, the half and the pixel next to it: 6 of 9
    expected = [1, 1, 0, 2 * (6 / 9) / (1 + 6 / 9), 0]
    torch.testing.assert_close(f1, torch.tensor(expected))

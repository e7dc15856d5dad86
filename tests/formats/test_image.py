"""Pictures of every kind come out square, RGB and on white, or with a cause."""

import random
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapterbench.formats.image import MAX_PIXELS, BadImageError, decode, is_blank, square, to_array


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(side: int = 24) -> Image.Image:
    """A picture whose pixels all differ."""
    y, x = np.mgrid[:side, :side] * 255 // side
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def test_a_lossless_picture_comes_back_as_it_was() -> None:
    assert decode(encoded(gradient())).tobytes() == gradient().tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_is_upright_as_its_camera_says(kind: str) -> None:
    photo = Image.new("RGB", (48, 16), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter
    assert decode(encoded(photo, kind, exif=exif)).size == (16, 48)


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, colour in enumerate([(255, 0, 0, 255), (255, 0, 0, 51), (0, 0, 0, 0)]):
        image.putpixel((x, 0), colour)
    # over white at alpha 51/255 = 0.2: 255 and 0.8 * 255
    expected = [(255, 0, 0), (255, 204, 204), (255, 255, 255)]
    assert [decode(encoded(image)).getpixel((x, 0)) for x in range(3)] == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), 1)
    shown = decode(encoded(image, transparency=(0, 0, 0) if mode == "RGB" else 0))
    assert shown.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"),
     ("CMYK", "JPEG"), ("L", "JPEG"), ("YCbCr", "JPEG")],
)  # fmt: skip
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = Image.new("I;16", (8, 6), 7) if mode == "I;16" else gradient().convert(mode)
    shown = decode(encoded(image, kind))
    assert (shown.mode, shown.size) == ("RGB", image.size)


def test_colours_survive_cmyk() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    shown = np.asarray(decode(encoded(red, "JPEG", quality=95)), dtype=int)
    assert np.abs(shown - (200, 30, 40)).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_picture(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#00ff00")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(4001, 4000), (MAX_PIXELS + 1, 1), (20_000, 20_000)])
def test_a_bomb_is_refused(size: tuple[int, int]) -> None:
    header = bytearray(encoded(Image.new("1", (1, 1))))
    header[16:24] = b"".join(number.to_bytes(4, "big") for number in size)
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(BadImageError, match="too many pixels"):
        decode(bytes(header))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_a_cut_file_is_refused(kind: str, share: float) -> None:
    data = encoded(gradient(), kind)
    with pytest.raises(BadImageError, match="not a readable image"):
        decode(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_damage_anywhere_is_a_picture_or_a_cause(kind: str) -> None:
    data = encoded(gradient(), kind)
    rng = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(BadImageError):
            assert decode(bytes(damaged)).mode == "RGB"


def test_text_is_not_a_picture() -> None:
    with pytest.raises(BadImageError):
        decode(b"<html>404</html>")


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_centre_is_cut_out(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    left, top = (size[0] - 20) // 2, (size[1] - 20) // 2
    image.paste(gradient(20), (left, top))
    assert square(image, 20).tobytes() == gradient(20).tobytes()


def test_a_square_is_scaled_as_pillow_does() -> None:
    expected = gradient(40).resize((16, 16), Image.Resampling.LANCZOS)
    assert square(gradient(40), 16).tobytes() == expected.tobytes()
    assert square(gradient(16), 16).tobytes() == gradient(16).tobytes()
    assert square(gradient(5), 16).size == (16, 16)


def test_a_long_strip_takes_little_memory() -> None:
    # scaled before it is cut, it would be 64 x 64 000 000 pixels
    assert square(Image.new("RGB", (1_000_000, 1)), 64).size == (64, 64)


def test_blank_pictures() -> None:
    image = Image.new("RGB", (8, 8), "#123456")
    assert is_blank(image)
    image.putpixel((7, 7), (0x12, 0x34, 0x57))
    assert not is_blank(image)
    assert not is_blank(gradient())


def test_an_array_is_channels_first() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    array = to_array(image)
    assert (array.shape, array.dtype, array[:, 0, 0].tolist()) == ((3, 2, 3), np.uint8, [1, 2, 3])
    assert array.flags.c_contiguous

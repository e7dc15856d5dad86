"""CaptionedImages of every kind come out square, RGB and on white, or with a cause."""

import random
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapterbench.formats.image import (
    FORMATS,
    MAX_PIXELS,
    BadImageError,
    decode,
    is_blank,
    square,
    to_array,
    to_rgb,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(side: int = 24) -> Image.Image:
    """An image whose pixels all differ."""
    y, x = np.mgrid[:side, :side] * 255 // side
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def test_a_lossless_image_comes_back_as_it_was() -> None:
    assert decode(encoded(gradient())).tobytes() == gradient().tobytes()


def test_no_flipped_bit_changes_a_png() -> None:
    whole, draw = encoded(gradient()), random.Random(20261126)
    for at in range(len(whole)):
        flipped = bytes([whole[at] ^ 1 << draw.randrange(8)])
        with suppress(BadImageError):
            image = decode(whole[:at] + flipped + whole[at + 1 :])
            assert image.tobytes() == gradient().tobytes(), at


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


def png(depth: int, colour: int, pixels: bytes, transparent: bytes = b"") -> bytes:
    """A PNG, one pixel high and of two pixels, as Pillow itself does not write it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + crc

    header = bytes([0, 0, 0, 2, 0, 0, 0, 1, depth, colour, 0, 0, 0])
    trns = chunk(b"tRNS", transparent) if transparent else b""
    data = chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + trns + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "pixels", "transparent"),
    [
        (2, 0, b"\x60", b"\0\1"),  # grey 1 and 2, of 3
        (4, 0, b"\x5a", b"\0\5"),  # grey 5 and 10, of 15
        (8, 0, b"\x55\xaa", b"\0\x55"),
        (16, 0, b"\x55\x55\xaa\xaa", b"\x55\x55"),
        (16, 2, b"\x55\x01" * 3 + b"\xaa\x01" * 3, b"\x55\x01" * 3),
    ],
)
def test_a_transparent_colour_is_white_at_any_depth(
    depth: int, colour: int, pixels: bytes, transparent: bytes
) -> None:
    shown = decode(png(depth, colour, pixels, transparent))
    assert [shown.getpixel((x, 0)) for x in range(2)] == [(255,) * 3, (170,) * 3]
    solid = decode(png(depth, colour, pixels))
    assert [solid.getpixel((x, 0)) for x in range(2)] == [(85,) * 3, (170,) * 3]


DEEP = np.array([[21 * 257, 128 * 257, 236 * 257]], dtype=np.uint16)


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        (DEEP, "PNG", {}),
        (DEEP, "TIFF", {}),
        (DEEP.astype(">u2"), "TIFF", {}),
        (65535 - DEEP, "TIFF", {"tiffinfo": {262: 0}}),  # a negative, as a TIFF may be
        ((DEEP / 65535).astype(np.float32), "TIFF", {}),
    ],
)
def test_grey_of_many_bits_keeps_its_shades(
    values: np.ndarray, kind: str, options: dict[str, Any]
) -> None:
    image = Image.fromarray(values)
    shown = np.asarray(decode(encoded(image, kind, **options)))
    assert shown.tolist() == [[[21] * 3, [128] * 3, [236] * 3]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 70_000]], dtype=np.int32),
        np.array([[0, 128, 255]], dtype=np.float32),
        np.array([[-0.1, 0.5]], dtype=np.float32),
        np.array([[0.5, np.nan]], dtype=np.float32),
    ],
)
def test_numbers_of_unknown_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(BadImageError, match="pixel values of unknown range"):
        decode(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colours_of_16_bits_keep_their_shades(kind: str) -> None:
    if kind == "PNG":
        data = png(16, 2, b"\x15\x15\x80\x80\xec\xec" * 2)
    else:  # Pillow writes none: two pixels, little-endian, one strip behind the tags
        tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2),
                (273, 4, 1, 140), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 12),
                (284, 3, 1, 1)]  # fmt: skip
        data = b"II*\0" + struct.pack("<IH", 8, len(tags))
        data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
        data += struct.pack("<3H", 16, 16, 16) + b"\x15\x15\x80\x80\xec\xec" * 2
    assert decode(data).getpixel((1, 0)) == (0x15, 0x80, 0xEC)


def test_a_palette_has_shades_of_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    shown = decode(encoded(image, transparency=bytes([255, 51, 0])))
    expected = [(255, 0, 0), (204, 255, 204), (255, 255, 255)]
    assert [shown.getpixel((x, 0)) for x in range(3)] == expected


def test_an_open_image_is_left_as_it_was() -> None:
    photo = Image.new("RGB", (48, 16), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(BytesIO(encoded(photo, "JPEG", exif=exif))) as image:
        assert to_rgb(image).size == (16, 48)
        assert image.size == (48, 16)
        assert to_rgb(to_rgb(image)).size == (16, 48)  # turned once


def test_damage_is_told_when_an_open_image_is_read() -> None:
    data = encoded(gradient())
    with Image.open(BytesIO(data[: len(data) // 2])) as image, pytest.raises(BadImageError):
        to_rgb(image)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"),
     ("CMYK", "JPEG"), ("L", "JPEG"), ("YCbCr", "JPEG")],
)  # fmt: skip
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    image = Image.new("I;16", (8, 6), 7) if mode == "I;16" else gradient().convert(mode)
    shown = decode(encoded(image, kind))
    assert (shown.mode, shown.size) == ("RGB", image.size)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_promised_is_decoded(kind: str) -> None:
    assert decode(encoded(gradient(), kind)).size == (24, 24)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "JPEG2000", "PCX", "PDF", "PPM", "SGI", "TGA"])
def test_what_is_not_promised_is_no_image(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS starts Ghostscript, in whatever file it comes."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", pytest.fail)
    with pytest.raises(BadImageError, match="not a readable image"):
        decode(encoded(gradient(), kind))
    with pytest.raises(BadImageError, match="not a readable image"):
        decode(encoded(gradient(), "GIF"), formats=("PNG", "JPEG", "WEBP"))


def test_colours_survive_cmyk() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    shown = np.asarray(decode(encoded(red, "JPEG", quality=95)), dtype=int)
    assert np.abs(shown - (200, 30, 40)).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_image(kind: str) -> None:
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
def test_damage_anywhere_is_a_image_or_a_cause(kind: str) -> None:
    data = encoded(gradient(), kind)
    rng = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with suppress(BadImageError):
            assert decode(bytes(damaged)).mode == "RGB"


def test_text_is_not_a_image() -> None:
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


def test_blank_images() -> None:
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

"""Tars of generated images: written, read whole or in part, and what is no such tar."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from adapterbench.core.errors import InputError
from adapterbench.formats.generated import (
    HEADLINE,
    PROTOCOLS,
    Generated,
    Illustrations,
    decode_images,
    find_tars,
    read_images,
    read_names,
    samples_tar,
    write_images,
)
from adapterbench.formats.image import to_png

COLOURS = {("b.c", 0): "red", ("b.c", 1): "green", ("a", 0): "blue"}
"""Of the images by key and k; a key may have a dot."""


def image(colour: str) -> Image.Image:
    return Image.new("RGB", (3, 2), colour)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "method" / "image.tar"
    write_images(path, (Generated(*name, to_png(image(c))) for name, c in COLOURS.items()))
    return path


def test_what_is_written_is_read_in_order(tar: Path) -> None:
    images = [Generated(*name, to_png(image(colour))) for name, colour in COLOURS.items()]
    assert list(read_images(tar)) == images
    assert read_names(tar) == list(COLOURS)
    with tarfile.open(tar) as members:
        assert members.getnames() == ["b.c.0.png", "b.c.1.png", "a.0.png"]
    again = tar.with_name("again.tar")
    write_images(again, images)
    assert again.read_bytes() == tar.read_bytes()
    assert find_tars(tar.parent) == [again, tar]


def test_some_images_are_decoded(tar: Path) -> None:
    blue, red = decode_images(tar, ["a", "b.c"])
    assert (blue.tobytes(), red.tobytes()) == (image("blue").tobytes(), image("red").tobytes())
    [green] = decode_images(tar, ["b.c"], k=1)
    assert green.tobytes() == image("green").tobytes()


def test_what_is_missing_is_named(tar: Path) -> None:
    with pytest.raises(InputError, match=r"image\.tar has no image a\.1\.png: make it again"):
        decode_images(tar, ["a"], k=1)
    with pytest.raises(InputError, match=r"nowhere holds no generated images"):
        find_tars(tar.parent / "nowhere")
    tar.unlink()
    with pytest.raises(InputError, match=r"image\.tar is missing") as caught:
        read_names(tar)
    assert caught.value.path == tar


@pytest.mark.parametrize("name", ["README", "a.x.png", "a.0.jpg", ".0.png"])
def test_a_member_that_is_no_generated_image_is_one_line(tar: Path, name: str) -> None:
    with tarfile.open(tar, "a") as members:
        members.addfile(tarfile.TarInfo(name), io.BytesIO())
    for read in (read_names, lambda path: list(read_images(path))):
        with pytest.raises(InputError, match=r"image\.tar is damaged \('.*' is not the image"):
            read(tar)


def test_an_image_that_is_damaged_is_named(tar: Path) -> None:
    write_images(tar, [Generated("a", 0, to_png(image("red"))[:40])])
    assert read_names(tar) == [("a", 0)]
    with pytest.raises(InputError, match=r"image\.tar is damaged \(a\.0\.png: "):
        decode_images(tar, ["a"])
    tar.write_bytes(b"not a tar")
    with pytest.raises(InputError, match=r"image\.tar is damaged"):
        decode_images(tar, ["a"])


def test_each_protocol_takes_the_image_prompt_away_from_its_floor() -> None:
    assert {name: p.with_text for name, p in PROTOCOLS.items()} == {
        "image": False,
        "image_text": True,
    }
    assert PROTOCOLS[HEADLINE].floor == "no_prompt"


def test_where_illustrations_lie(tmp_path: Path) -> None:
    drawn = Illustrations(tmp_path)
    assert drawn.bases == []
    for path in (drawn.base("twin"), drawn.base("art"), drawn.scale(1.0), drawn.scale(0.5)):
        write_images(path, [])
    assert drawn.bases == ["art", "twin"]
    assert [path.name for path in find_tars(drawn.sweep)] == ["0.5.tar", "1.tar"]
    assert samples_tar(tmp_path / "ip_adapter", "image") == tmp_path / "ip_adapter/image.tar"

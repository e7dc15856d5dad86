from io import BytesIO

import pytest
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.demo import html, upload
from adapterbench.report.references import Reference


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_a_large_image_is_kept_smaller() -> None:
    reference = upload.read_upload(encoded(Image.new("RGBA", (3000, 1500))), "glass.png")
    assert reference.caption == "glass.png"
    assert reference.image.size == (upload.SIDE, upload.SIDE // 2)
    assert reference.image.getpixel((0, 0)) == (255, 255, 255)


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"a.png: too many bytes. Use PNG, JPEG or WebP, up to"):
        upload.read_upload(encoded(Image.new("RGB", (8, 8))), "a.png")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("ring.png", "ring.png"),
        ("../../etc/ring.png", "ring.png"),
        (r"C:\images\ring.png", "ring.png"),
        ("", "image"),
        ("/", "image"),
        ("a\nb\x1b[31m\u202e.png", "ab[31m.png"),
        ("a" * 500 + "ring.png", "a" * 91 + "…ring.png"),
    ],
)
def test_the_name_of_a_file(path: str, name: str) -> None:
    assert upload.base_name(path) == name
    assert len(name) <= upload.MAX_NAME


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS"])
def test_another_format_under_a_promised_name(kind: str) -> None:
    with pytest.raises(UserError, match=r"a.png: not a readable image. Use PNG, JPEG or WebP"):
        upload.read_upload(encoded(Image.new("RGB", (8, 8)), kind), "a.png")


@pytest.mark.parametrize("kind", upload.FORMATS)
def test_the_promised_formats(kind: str) -> None:
    assert upload.read_upload(encoded(Image.new("RGB", (8, 8)), kind), "a").image.size == (8, 8)


def test_a_file_name_is_no_html() -> None:
    name = "<img src=x onerror=alert(1)>"
    for shown in (
        html.chosen(Reference(Image.new("RGB", (8, 8)), name)),
        html.chosen(None, f"{name}: not a readable image"),
    ):
        assert "<img src=x" not in shown
        assert "&lt;img src=x" in shown

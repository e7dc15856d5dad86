from pathlib import Path

import pytest
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.demo import upload
from adapterbench.demo.inputs import name_of
from adapterbench.report.pictures import Reference


def test_a_large_picture_is_kept_smaller(tmp_path: Path) -> None:
    Image.new("RGBA", (3000, 1500)).save(tmp_path / "glass.png")
    reference = upload.read_upload(tmp_path / "glass.png")
    assert reference.caption == "glass.png"
    assert reference.image.size == (upload.SIDE, upload.SIDE // 2)
    assert reference.image.getpixel((0, 0)) == (255, 255, 255)


def test_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_BYTES", 10)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png: too many bytes. Use PNG, JPEG or WebP, up to"):
        upload.read_upload(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS"])
def test_another_format_under_a_promised_name(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", kind)
    with pytest.raises(UserError, match=r"a.png: not a readable image. Use PNG, JPEG or WebP"):
        upload.read_upload(tmp_path / "a.png")


def test_a_file_name_is_no_html() -> None:
    name = "<img src=x onerror=alert(1)>"
    assert "<img" not in name_of(Reference(Image.new("RGB", (8, 8)), name))

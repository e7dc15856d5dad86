import json
from pathlib import Path

import pytest
from PIL import Image

from adapterbench.demo.folder import FileFolder
from adapterbench.demo.settings import ImagePrompt, Settings

SETTINGS = Settings(
    method="toy",
    base="toy",
    images=(ImagePrompt(caption="ring", sha256="0" * 64, scale=1),),
    text="",
    negative_text="",
    guidance_scale=3,
    steps=2,
    seed=7,
)


def test_an_image_holds_its_settings(tmp_path: Path) -> None:
    path = FileFolder(tmp_path).save(Image.new("RGB", (8, 8)), SETTINGS).path
    assert path.name == "toy-seed-7.png"
    with Image.open(path) as image:
        assert json.loads(image.text["adapterbench"])["seed"] == 7  # type: ignore[attr-defined]


def test_the_oldest_images_go(tmp_path: Path) -> None:
    saved = FileFolder(tmp_path / "..").save(Image.new("RGB", (8, 8)), SETTINGS)
    size = saved.path.stat().st_size
    folder = FileFolder(tmp_path, max_bytes=3 * size)
    paths = [folder.save(Image.new("RGB", (8, 8)), SETTINGS).path for _ in range(4)]
    with folder.new("archive.zip") as path:
        path.write_bytes(bytes(size))
    paths.append(path)
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert {path.parent for path in paths[2:]} == {*tmp_path.iterdir()}


def test_a_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = FileFolder(tmp_path)

    def write() -> None:
        with folder.new("a.zip") as path:
            path.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []
    assert not folder.files

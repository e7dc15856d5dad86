import json
from pathlib import Path

from PIL import Image

from adapterbench.demo.folder import ImageFolder
from adapterbench.demo.settings import Settings

SETTINGS = Settings(
    method="toy",
    base="toy",
    image_prompt="ring",
    text="",
    negative_text="",
    control=None,
    scale=1,
    guidance_scale=3,
    steps=2,
    seed=7,
)


def test_an_image_holds_its_settings(tmp_path: Path) -> None:
    path = ImageFolder(tmp_path).save(Image.new("RGB", (8, 8)), SETTINGS)
    assert path.name == "toy-seed-7.png"
    with Image.open(path) as image:
        assert json.loads(image.text["adapterbench"])["seed"] == 7  # type: ignore[attr-defined]


def test_the_oldest_images_go(tmp_path: Path) -> None:
    size = ImageFolder(tmp_path / "..").save(Image.new("RGB", (8, 8)), SETTINGS).stat().st_size
    folder = ImageFolder(tmp_path, max_bytes=3 * size)
    paths = [folder.save(Image.new("RGB", (8, 8)), SETTINGS) for _ in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert {path.parent for path in paths[2:]} == {*tmp_path.iterdir()}

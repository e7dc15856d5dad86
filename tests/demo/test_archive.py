import hashlib
import json
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.demo.archive import write_archive
from adapterbench.demo.folder import FileFolder
from adapterbench.demo.settings import ImagePrompt, InputImage, Settings
from adapterbench.demo.store import ImageStore

RESULT = Image.new("RGB", (8, 8), "teal")


def test_everything_to_make_the_images_again(tmp_path: Path) -> None:
    store, folder = ImageStore(), FileFolder(tmp_path)
    ring = store.put(Image.new("RGB", (8, 8), "red"), "ring")
    mask = store.put(Image.new("L", (8, 8), 255), "mask")
    settings = Settings(
        method="toy",
        base="base",
        images=(ImagePrompt(caption="ring", sha256=ring.sha256, scale=0.5, mask=mask.sha256),),
        text="a text",
        negative_text="",
        negative_image=InputImage(caption="gone", sha256="f" * 64),
        guidance_scale=3,
        steps=2,
        seed=7,
        weights="a" * 64,
    )
    images = [folder.save(RESULT, settings), folder.save(RESULT, replace(settings, seed=8))]
    gone = folder.save(RESULT, settings)
    gone.path.unlink()
    write_archive(tmp_path / "all.zip", [*images, gone], store)
    with ZipFile(tmp_path / "all.zip") as archive:
        listed = json.loads(archive.read("settings.json"))
        names = ["01-toy-seed-7.png", "02-toy-seed-8.png"]
        inputs = [f"inputs/{toy_image.sha256}.png" for toy_image in (ring, mask)]
        assert archive.namelist() == [*names, *inputs, "settings.json"]
        for name, toy_image in zip(inputs, (ring, mask), strict=True):
            assert hashlib.sha256(archive.read(name)).hexdigest() == toy_image.sha256
        assert archive.read(names[0]) == images[0].path.read_bytes()
    assert [entry["file"] for entry in listed] == names
    assert [entry["seed"] for entry in listed] == [7, 8]
    assert listed[0]["weights"] == "a" * 64
    assert listed[0]["version"]
    assert listed[0]["images"][0] == {
        "caption": "ring",
        "sha256": ring.sha256,
        "scale": 0.5,
        "mask": mask.sha256,
    }


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no images yet"):
        write_archive(tmp_path / "all.zip", [], ImageStore())
    assert not (tmp_path / "all.zip").exists()

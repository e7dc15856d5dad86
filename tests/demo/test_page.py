"""The demo end to end in a headless Chromium."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from toy_backbone import picture

from .visitor import Visitor, png


def test_upload_generate_and_download(visitor: Visitor) -> None:
    visitor.upload("mine.png", png(picture("ring", "red")))
    visitor.sees("mine.png")
    visitor.page.get_by_label("Text", exact=True).fill("a red ring")
    visitor.generate()
    visitor.sees("Done")
    visitor.wait()
    pixels, settings = visitor.download()
    assert settings == {
        "method": "toy",
        "base": "toy",
        "image_prompt": "mine.png",
        "text": "a red ring",
        "negative_text": "",
        "control": None,
        "scale": 1,
        "guidance_scale": 3,
        "steps": 2,
        "seed": 0,
    }
    visitor.set_scale(0.5)
    visitor.generate()
    visitor.wait()
    other, settings = visitor.download()
    assert settings["scale"] == 0.5
    assert other != pixels
    visitor.thumbnail(1).click()
    visitor.page.locator("dl.settings").get_by_text("1", exact=True).wait_for()
    assert visitor.download()[0] == pixels


def test_bad_uploads_are_explained(visitor: Visitor) -> None:
    visitor.upload("whole.png", png(picture("ring", "red")))
    visitor.sees("whole.png")
    visitor.upload("cut.png", png(picture("ring", "blue"))[:100])
    visitor.told("cut.png: not a readable image")
    visitor.upload("wide.png", png(Image.new("1", (5000, 5000))))
    visitor.told("wide.png: too many pixels")
    visitor.upload("heavy.png", bytes(2**19))
    visitor.told("exceed the maximum allowed size")
    assert visitor.post("gradio_api/upload", bytes(2**19)) == 413  # past the page's own check
    visitor.sees("whole.png")


def test_two_people_at_once_get_their_own_pictures(
    visitor: Visitor, visit: Callable[[], Visitor]
) -> None:
    people = {"red.png": visitor, "blue.png": visit()}
    for name, each in people.items():
        each.upload(name, png(picture("bar", name.removesuffix(".png"))))
        each.sees(name)
    for each in people.values():
        each.generate()
    made = set()
    for name, each in people.items():
        each.wait()
        pixels, settings = each.download()
        assert settings["image_prompt"] == name
        made.add(pixels)
    assert len(made) == 2


def test_results_and_nothing_from_or_to_elsewhere(visitor: Visitor, place: Path) -> None:
    visitor.page.get_by_role("tab", name="Results").click()
    visitor.page.get_by_role("cell", name="IP Adapter").first.wait_for()
    figure = visitor.page.locator("img[src$='pareto.png']")
    figure.wait_for()
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    visitor.page.get_by_role("tab", name="Try it").click()
    assert visitor.hosts <= {"127.0.0.1", None}
    assert list(place.iterdir()) == []

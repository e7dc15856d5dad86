"""The demo end to end in a headless Chromium."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from toy_backbone import picture

from .visitor import Visitor, png

Visit = Callable[[], Visitor]


def test_upload_generate_and_download(visit: Visit) -> None:
    visitor = visit()
    visitor.upload("mine.png", png(picture("ring", "red")))
    visitor.sees("mine.png")
    visitor.page.get_by_label("Text", exact=True).fill("a red ring")
    visitor.generate()
    visitor.sees("Done")
    visitor.wait(1)
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
    visitor.wait(2)
    other, settings = visitor.download()
    assert settings["scale"] == 0.5
    assert other != pixels
    visitor.page.locator(".session .thumbnail-item").nth(1).click()
    visitor.page.locator("dl.settings").get_by_text("1", exact=True).wait_for()
    assert visitor.download()[0] == pixels


def test_bad_uploads_are_explained(visit: Visit) -> None:
    visitor = visit()
    whole = png(picture("ring", "red"))
    visitor.upload("cut.png", whole[: len(whole) // 2])
    visitor.told("cut.png: not a readable image")
    visitor.upload("wide.png", png(Image.new("1", (5000, 5000))))
    visitor.told("wide.png: too many pixels")
    visitor.upload("heavy.png", bytes(11 * 2**20))
    visitor.told("exceeds the maximum")
    # and the picture from before is still there
    visitor.generate()
    visitor.wait(1)


def test_two_people_at_once_get_their_own_pictures(visit: Visit) -> None:
    visitors = [visit(), visit()]
    for number, visitor in enumerate(visitors):
        visitor.upload(f"{number}.png", png(picture("bar", ["red", "blue"][number])))
        visitor.sees(f"{number}.png")
    for visitor in visitors:
        visitor.generate()
    made = []
    for number, visitor in enumerate(visitors):
        visitor.wait(1)
        pixels, settings = visitor.download()
        assert settings["image_prompt"] == f"{number}.png"
        made.append(pixels)
    assert made[0] != made[1]


def test_results_and_nothing_from_or_to_elsewhere(visit: Visit, place: Path) -> None:
    visitor = visit()
    visitor.page.get_by_role("tab", name="Results").click()
    visitor.page.get_by_role("cell", name="IP Adapter").first.wait_for()
    figure = visitor.page.locator("img[src$='pareto.png']")
    figure.wait_for()
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert visitor.hosts <= {"127.0.0.1", None}
    assert list(place.iterdir()) == []

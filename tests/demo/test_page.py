"""The demo end to end in a headless Chromium."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from toy_backbone import picture

from adapterbench.adapters.core.storage import WEIGHTS
from adapterbench.core.files import sha256
from adapterbench.demo.hosts import known_hosts

from .conftest import served
from .visitor import Visitor, png

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_upload_generate_and_download(visitor: Visitor, models: Path) -> None:
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
        "images": settings["images"],
        "text": "a red ring",
        "negative_text": "",
        "negative_image": None,
        "control": None,
        "layers": "all",
        "start": 0,
        "end": 1,
        "fit": "crop",
        "guidance_scale": 3,
        "steps": 2,
        "seed": 0,
        "weights": sha256(models / "toy" / WEIGHTS),
        "version": version("adapterbench"),
    }
    (image,) = settings["images"]
    assert (image["caption"], image["scale"], image["mask"]) == ("mine.png", 1, None)
    visitor.set_scale(0.5)
    visitor.generate()
    visitor.wait()
    other, settings = visitor.download()
    assert settings["images"][0]["scale"] == 0.5
    assert other != pixels
    visitor.thumbnail(1).click()
    visitor.page.locator("dl.settings").get_by_text("mine.png, scale 1", exact=True).wait_for()
    assert visitor.download()[0] == pixels


def test_refused_uploads_are_explained_and_leave_no_image(visitor: Visitor) -> None:
    visitor.upload("whole.png", png(picture("ring", "red")))
    visitor.sees("whole.png")
    visitor.upload("cut.png", png(picture("ring", "blue"))[:100])
    visitor.refused("cut.png: not a readable image. Use PNG, JPEG or WebP")
    visitor.button("Generate").click()
    visitor.told("There is no image prompt yet")
    visitor.upload("wide.png", png(Image.new("1", (5000, 5000))))
    visitor.refused("wide.png: too many pixels")
    visitor.upload("heavy.png", bytes(2**19))
    visitor.refused("heavy.png: too many bytes")
    assert visitor.post("gradio_api/upload", bytes(2**19)) == 413  # past the page's own check
    visitor.upload("whole.png", png(picture("ring", "red")))
    visitor.sees("whole.png")
    assert visitor.page.get_by_role("alert").count() == 0


def test_an_upload_that_does_not_arrive(visitor: Visitor) -> None:
    visitor.page.route("**/gradio_api/upload", lambda route: route.abort())
    visitor.upload("lost.png", png(picture("ring", "red")))
    visitor.refused("lost.png did not reach the server: try again")
    visitor.page.unroute("**/gradio_api/upload")


def test_a_bad_seed_is_named(visitor: Visitor) -> None:
    visitor.upload("whole.png", png(picture("ring", "red")))
    visitor.sees("whole.png")
    seed = visitor.page.get_by_label("Seed", exact=True)
    seed.fill("-5")
    visitor.button("Generate").click()
    visitor.told("Seed is -5: ")
    seed.fill("0")


@pytest.mark.parametrize(("width", "reach"), [(390, 100), (1280, 844)])
def test_the_result_comes_into_view(
    width: int, reach: int, visit: Callable[[int], Visitor]
) -> None:
    """On a phone it is below all controls."""
    visitor = visit(width)
    visitor.button("Generate").scroll_into_view_if_needed()
    visitor.generate()
    visitor.sees("Done")
    visitor.page.wait_for_function(
        """reach => {
            const {top, width} = document.querySelector('.strip').getBoundingClientRect()
            return 0 <= top && top < reach && width <= window.innerWidth
        }""",
        arg=reach,
    )
    visitor.wait()


def test_two_people_at_once_get_their_own_images(
    visitor: Visitor, visit: Callable[..., Visitor]
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
        assert settings["images"][0]["caption"] == name
        made.add(pixels)
    assert len(made) == 2


def test_results_and_nothing_from_or_to_elsewhere(visitor: Visitor, place: Path) -> None:
    visitor.page.get_by_role("tab", name="Results").click()
    visitor.page.get_by_role("cell", name="IP-Adapter").first.wait_for()
    figure = visitor.page.locator("img[src$='pareto.png']")
    figure.wait_for()
    assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    visitor.page.get_by_role("tab", name="Try it").click()
    assert visitor.hosts <= {"127.0.0.1", None}
    assert list(place.iterdir()) == []


def test_logging_in(browser: "Browser") -> None:
    from adapterbench.demo.application import application
    from adapterbench.demo.upload import Uploads

    from .small import small_page

    app = application(small_page(Event()), Uploads(), known_hosts("127.0.0.1"), ("demo", "secret"))
    with served(app) as address:
        page = Visitor(browser.new_page(), address).page
        for password, shown in (("guess", "Incorrect"), ("secret", "for friends")):
            page.get_by_label("username").fill("demo")
            page.get_by_label("password").fill(password)
            page.get_by_role("button", name="Login").click()
            page.get_by_text(shown).first.wait_for()

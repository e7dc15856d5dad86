"""The demo end to end in a headless Chromium."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from PIL import Image
from toy_backbone import toy_image

from adapterbench.adapters.core.storage import WEIGHTS
from adapterbench.core.files import sha256
from adapterbench.demo.hosts import known_hosts

from .conftest import served
from .visitor import Visitor, png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route


def test_upload_generate_and_download(visitor: Visitor, models: Path) -> None:
    visitor.upload("mine.png", png(toy_image("ring", "red")))
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


def test_an_upload_before_the_page_has_its_first_image(browser: "Browser", address: str) -> None:
    page, held = browser.new_page(), list["Route"]()
    holds = True

    def hold(route: "Route") -> None:
        held.append(route) if holds else route.continue_()

    page.route("**/gradio_api/queue/join**", hold)
    visitor = Visitor(page, address).opened()
    visitor.upload("mine.png", png(toy_image("ring", "red")))

    def is_upload(route: "Route") -> bool:
        return "token" in (route.request.post_data or "")

    while not any(map(is_upload, held)):
        page.wait_for_timeout(10)
    holds = False
    for route in sorted(held, key=is_upload, reverse=True):  # the upload first
        route.continue_()
        visitor.sees("mine.png")
    visitor.generate()
    visitor.wait()
    assert visitor.download()[1]["images"][0]["caption"] == "mine.png"


def test_refused_uploads_are_explained_and_leave_no_image(visitor: Visitor) -> None:
    visitor.upload("whole.png", png(toy_image("ring", "red")))
    visitor.sees("whole.png")
    visitor.upload("cut.png", png(toy_image("ring", "blue"))[:100])
    visitor.refused("cut.png: not a readable image. Use PNG, JPEG or WebP")
    visitor.button("Generate").click()
    visitor.told("There is no image prompt yet")
    visitor.upload("wide.png", png(Image.new("1", (5000, 5000))))
    visitor.refused("wide.png: too many pixels")
    visitor.upload("heavy.png", bytes(2**19))
    visitor.refused("heavy.png: too many bytes")
    assert visitor.post("gradio_api/upload", bytes(2**19)) == 413  # past the page's own check
    visitor.upload("whole.png", png(toy_image("ring", "red")))
    visitor.sees("whole.png")
    assert visitor.page.get_by_role("alert").count() == 0


def test_an_upload_that_does_not_arrive(visitor: Visitor) -> None:
    visitor.page.route("**/gradio_api/upload", lambda route: route.abort())
    visitor.upload("lost.png", png(toy_image("ring", "red")))
    visitor.refused("lost.png did not reach the server: try again")
    visitor.page.unroute("**/gradio_api/upload")


def test_a_bad_seed_is_named(visitor: Visitor) -> None:
    visitor.upload("whole.png", png(toy_image("ring", "red")))
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
        each.upload(name, png(toy_image("bar", name.removesuffix(".png"))))
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


@pytest.mark.parametrize("width", [1280, 390])
def test_two_images_a_mask_and_a_grid(width: int, visit: Callable[[int], Visitor]) -> None:
    visitor = visit(width)
    page = visitor.page
    visitor.upload("mine.png", png(toy_image("ring", "red")))
    visitor.sees("mine.png")
    visitor.open("Where image 1 acts")
    visitor.sees("It acts everywhere.")
    box = page.locator("canvas").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] - 5, steps=3)
    page.mouse.up()
    page.get_by_text("% of the image.").wait_for()
    assert visitor.canvas() == [255, 0]
    tools, panel = (page.locator(kind).first.bounding_box() for kind in (".buttons", ".images"))
    assert tools
    assert panel
    assert tools["x"] + tools["width"] < panel["x"] + panel["width"]
    visitor.tab("Image 2")
    page.get_by_title("a red frame").click()
    page.get_by_role("tab", name="Image 2 ✓").wait_for()
    visitor.open("Grid over scale and seed")
    page.get_by_label("Scales of image 1").fill("0.4, 0.8")
    page.get_by_label("Seeds").fill("3, 4")
    visitor.open("Steps and layers")
    visitor.open("More")
    assert visitor.overflow() <= 0
    visitor.generate(4)
    visitor.sees("Done")
    visitor.wait()
    assert visitor.overflow() <= 0
    assert page.locator(".strip .grid figure").count() == 4
    captions = page.locator(".session .caption-label").all_inner_texts()
    expected = [f"toy, scale {x} + 1, seed {seed}" for seed in (3, 4) for x in (0.4, 0.8)]
    assert [caption.replace("\xa0", " ") for caption in captions] == expected


def test_the_same_settings_again(visitor: Visitor) -> None:
    page = visitor.page
    visitor.upload("mine.png", png(toy_image("ring", "red")))
    visitor.sees("mine.png")
    visitor.open("Where image 1 acts")
    visitor.button("Right half").first.click()
    visitor.sees("It acts in 50% of the image.")
    page.get_by_label("Text", exact=True).fill("a red ring")
    visitor.set_scale(0.6)
    visitor.generate()
    visitor.wait()
    pixels, settings = visitor.download()
    page.get_by_title("a green frame").click()  # the example: an image and a text
    page.locator(".chosen .caption").get_by_text("a red frame").wait_for()
    page.wait_for_function("document.querySelector('textarea').value === 'a green frame'")
    visitor.button("Clear").first.click()
    visitor.sees("It acts everywhere.")
    visitor.set_scale(1.2)
    visitor.button("Use these settings again").click()
    visitor.sees("mine.png")
    visitor.sees("It acts in 50% of the image.")
    page.wait_for_function("document.querySelector('textarea').value === 'a red ring'")
    assert visitor.canvas() == [0, 255]
    visitor.generate()
    visitor.wait()
    page.wait_for_function("document.querySelector('progress').value === 2")
    assert visitor.download() == (pixels, settings)
    with ZipFile(visitor.file("Download all (ZIP)")) as archive:
        first, *_ = listed = json.loads(archive.read("settings.json"))
        images = [name for name in archive.namelist() if name.endswith("-seed-0.png")]
    assert [entry["file"] for entry in listed] == images
    assert first == {"file": images[0], **settings}
    visitor.button("Clear").first.click()
    visitor.sees("It acts everywhere.")


def test_by_keyboard_alone(visit: Callable[..., Visitor]) -> None:
    """Few Tab stops lead to the text, one passes all images to pick from."""
    visitor = visit()
    page, keyboard = visitor.page, visitor.page.keyboard

    def focused(selector: str, most: int) -> None:
        """Press Tab until an element that matches has the focus, at most so many times."""
        for _ in range(most):
            keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"{most} times Tab do not lead to {selector}")

    focused("textarea", 4)
    keyboard.type("a ring")
    focused(".picks button", 14)
    keyboard.press("End")
    keyboard.press("ArrowLeft")
    keyboard.press("Enter")
    last, *_ = page.locator(".picks button").all()[-2:]
    page.locator(".chosen .caption").get_by_text(str(last.get_attribute("title"))).wait_for()
    focused(".examples button", 1)
    focused("button.primary", 4)
    visitor.images += 1
    keyboard.press("Enter")
    visitor.sees("Done")
    visitor.wait()
    focused(".session .thumbnail-item", 40)
    keyboard.press("Enter")
    page.locator("dl.settings").wait_for()
    with page.expect_download() as download:
        focused(".archive", 4)
        keyboard.press("Enter")
    with ZipFile(download.value.path()) as archive:
        assert json.loads(archive.read("settings.json"))[0]["text"] == "a ring"


def test_the_results_can_be_read_as_one_likes(visit: Callable[[int], Visitor]) -> None:
    visitor = visit(390)
    page = visitor.page
    visitor.tab("Results")
    page.get_by_role("cell", name="No prompt").wait_for()
    page.get_by_text("Trainable parameters against each score").wait_for()
    assert visitor.overflow() <= 0
    page.get_by_label("Floors and ceilings").uncheck()
    page.get_by_role("cell", name="No prompt").wait_for(state="detached")
    page.get_by_label("Filter").fill("nothing")
    visitor.sees("No method has that in its name.")
    page.get_by_label("Filter").fill("ip-adapter")
    page.get_by_role("cell", name="IP-Adapter").wait_for()
    table = visitor.file("Download this table (CSV)").read_text()
    assert [line.split(",")[0] for line in table.splitlines()] == ["method", "ip_adapter"]
    page.get_by_label("Horizontal axis").click()
    page.get_by_role("option", name="CLIP-T").click()
    plot = page.get_by_alt_text("Scatter plot of CLIP-I over CLIP-T (cosine)")
    plot.wait_for()
    assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 500


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

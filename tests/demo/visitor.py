"""What a person does on the demo's page."""

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Page


PATIENCE = 300_000
"""Milliseconds for what takes seconds on an idle machine."""


def png(image: Image.Image) -> bytes:
    """An image's file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Visitor:
    """A browser window of its own session."""

    def __init__(self, page: "Page", address: str) -> None:
        self.page, self.hosts, self.images = page, set[str | None](), 0
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        page.goto(address)

    def opened(self) -> "Visitor":
        """Wait until the page is there."""
        self.button("Generate").wait_for()
        return self

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name)

    def upload(self, name: str, data: bytes) -> None:
        file: FilePayload = {"name": name, "mimeType": "image/png", "buffer": data}
        self.page.locator("input[type=file]").first.set_input_files(file)

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.page.get_by_role("tab", name=name).click()

    def post(self, path: str, data: bytes) -> int:
        """Send a file as a program would; return the status."""
        file: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": data}
        return self.page.request.post(self.page.url + path, multipart={"files": file}).status

    def told(self, text: str) -> None:
        """Wait for a message of the whole page, and close it."""
        message = self.page.get_by_test_id("toast-body").filter(has_text=text)
        message.first.wait_for()
        message.get_by_role("button").last.click()
        message.first.wait_for(state="detached")  # it fades

    def refused(self, text: str) -> None:
        """Wait for what is wrong with the upload: one message, and no image."""
        self.page.get_by_role("alert").filter(has_text=text).wait_for()
        assert self.page.get_by_role("alert").count() == 1
        assert self.page.get_by_test_id("toast-body").count() == 0
        assert self.page.locator(".chosen img").count() == 0

    def sees(self, text: str) -> None:
        self.page.get_by_text(text, exact=True).first.wait_for()

    def set_scale(self, value: float) -> None:
        field = self.page.get_by_label("number input for Scale of image 1")
        field.fill(str(value))
        field.press("Tab")

    def generate(self, images: int = 1) -> None:
        """Ask for images; `wait` until they are there."""
        self.images += images
        self.button("Generate").click()

    def wait(self) -> None:
        """Until the session has the images asked for, the last one chosen."""
        self.thumbnail(self.images - 1).wait_for()

    def thumbnail(self, number: int) -> Any:
        """An image of the session, the newest first."""
        return self.page.locator(".session .thumbnail-item").nth(number)

    def open(self, accordion: str) -> None:
        """Open an accordion."""
        self.page.get_by_role("button", name=accordion).click()

    def file(self, button: str) -> Path:
        """Download what a button makes."""
        with self.page.expect_download() as download:
            self.button(button).click()
        return Path(download.value.path())

    def canvas(self) -> list[int]:
        """Grey levels of the first image's mask in the middle of its left and right half."""
        levels: list[int] = self.page.locator("canvas").first.evaluate(
            """canvas => [.25, .75].map(x => canvas.getContext('2d')
                .getImageData(x * canvas.width, canvas.height / 2, 1, 1).data[0])"""
        )
        return levels

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        wider: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    def download(self) -> tuple[bytes, dict[str, Any]]:
        """The chosen image's pixels, and the settings in its file."""
        with self.page.expect_download() as download:
            self.page.get_by_text("Download this image").click()
        with Image.open(Path(download.value.path())) as image:
            return image.tobytes(), json.loads(image.text["adapterbench"])  # type: ignore[attr-defined]

"""The right side of the page: the output components."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from adapterbench.core.errors import UserError
from adapterbench.demo import html
from adapterbench.demo.archive import NAME, write_archive
from adapterbench.demo.downloads import download_made
from adapterbench.demo.folder import FileFolder, Saved
from adapterbench.demo.inputs import Values
from adapterbench.demo.progress import NBSP
from adapterbench.demo.settings import Settings, title
from adapterbench.demo.store import ImageStore
from adapterbench.report.methods import label

HISTORY = 48
"""Most images of a session."""
DIGITS = 16
"""Shown digits of a digest; the image's file has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The output components."""

    strip: gr.HTML
    history: gr.State
    """`list[Saved]`, newest first."""
    chosen: gr.State
    """`Saved` whose settings are shown; None: no image yet."""
    gallery: gr.Gallery
    settings: gr.HTML
    download: gr.DownloadButton
    again: gr.Button

    @property
    def components(self) -> list[Any]:
        """All of them."""
        return [getattr(self, name) for name in self.__slots__]

    def selected(self, history: Sequence[Saved], number: int) -> Values:
        """Updates that show the settings of an image and offer its file for download.

        Raises:
            UserError: the file has been deleted.
        """
        image = history[number]
        if not image.path.exists():
            raise UserError("That image is no longer kept: generate it again")
        return {
            self.chosen: image,
            self.settings: html.definitions(readable(image.settings)),
            self.download: gr.DownloadButton(value=image.path, interactive=True),
            self.again: gr.Button(interactive=True),
        }

    def added(self, made: Sequence[Saved], history: Sequence[Saved]) -> Values:
        """Updates that put new images before the others and select the first."""
        kept = [image for image in [*made, *history][:HISTORY] if image.path.exists()]
        shown = [(image.path, described(image.settings)) for image in kept]
        return {
            self.history: kept,
            self.gallery: gr.Gallery(shown, selected_index=0),
            **self.selected(kept, 0),
        }


def views(folder: FileFolder, store: ImageStore) -> Views:
    """Build the output components."""
    strip = gr.HTML("The images will appear here.")
    history, chosen = gr.State([]), gr.State(None)
    gallery = gr.Gallery(
        label="Images of this session",
        columns=5,
        height="auto",
        elem_classes="session",
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )
    with gr.Row():
        again = gr.Button("Use these settings again", size="sm", interactive=False)
        download = gr.DownloadButton("Download this image", size="sm", interactive=False)

        def archive(images: Sequence[Saved]) -> Any:
            with folder.new(NAME) as path:
                write_archive(path, images, store)
            return path

        download_made("Download all (ZIP)", archive, [history], "archive")
    return Views(
        strip=strip,
        history=history,
        chosen=chosen,
        gallery=gallery,
        settings=gr.HTML(),
        download=download,
        again=again,
    )


def described(settings: Settings) -> str:
    """Caption of an image in the gallery."""
    scales = f"{NBSP}+{NBSP}".join(f"{image.scale:g}" for image in settings.images)
    return f"{label(settings.method)}, scale{NBSP}{scales}, seed{NBSP}{settings.seed}"


def readable(of_image: Settings) -> dict[str, str]:
    """Settings as text, by their titles."""
    images = {
        f"image_{number}": f"{image.caption}, scale {image.scale:g}"
        + (", masked" if image.mask else "")
        for number, image in enumerate(of_image.images, 1)
    }
    others = asdict(of_image)
    del others["images"]
    others["weights"] = others["weights"] and f"{others['weights'][:DIGITS]}…"
    named = {"method": label(others.pop("method")), **images, **others}
    return {title(name): in_words(value) for name, value in named.items() if value is not None}


def in_words(value: object) -> str:
    """A setting's value as text."""
    if isinstance(value, dict):
        return str(value["caption"])
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "-"

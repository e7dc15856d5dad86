"""Image input: upload, checked by the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.context import Context

from adapterbench.core.errors import UserError
from adapterbench.demo import html, upload
from adapterbench.demo.store import ImageStore, StoredImage
from adapterbench.demo.upload import Uploads
from adapterbench.report.references import Reference

TEMPLATE = """<div class="chosen">${value}
<div class="do"><label class="upload"><input type="file" accept="image/png,image/jpeg,image/webp">
Upload an image</label><button type="button" class="remove">Remove</button></div>
<p class="hint">${hint}</p></div>"""
MAX_PROBLEM = 300
"""Most characters of an error message."""

Values = dict[Any, Any]
"""Values of the page's components, by component."""


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Show a `UserError` in the browser."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image that the visitor chooses."""

    state: gr.State
    """The session's `StoredImage`, checked by the server; None: no image."""
    place: gr.HTML
    tab: gr.Tab
    name: str
    store: ImageStore

    @property
    def outputs(self) -> list[Any]:
        """The components that `use` sets."""
        return [self.state, self.place, self.tab]

    def use(self, stored: StoredImage | None, problem: str = "") -> Values:
        """Updates that select an image, or none and show the cause.

        So after a refused upload the previous image is not used by mistake.
        """
        shown = None
        if stored is not None:
            try:
                shown = Reference(self.store.image(stored), stored.caption)
            except UserError as error:
                stored, problem = None, str(error)
        return {
            self.state: stored,
            self.place: html.chosen(shown, problem),
            self.tab: gr.Tab(label=self.name if stored is None else marked(self.name)),
        }


def marked(name: str) -> str:
    """Label of a tab that has an image."""
    return f"{name} ✓"


def image_input(
    name: str, tab: gr.Tab, uploads: Uploads, start: Reference | None = None, hint: str = ""
) -> ImageInput:
    """An image input.

    Args:
        name: label of its tab, which gets a mark while there is an image.
        tab: the tab that it is in.
        uploads: uploaded images that wait to be used.
        start: image that is selected at first.
        hint: what the image does, in a sentence.
    """
    state = gr.State(None)
    place = gr.HTML(
        html.chosen(start),
        label=name,
        html_template=TEMPLATE,
        js_on_load=html.script("post", "upload"),
        container=True,
        elem_classes="own",
        max_bytes=upload.MAX_BYTES,
        limits=upload.limits(),
        hint=hint,
    )
    chosen = ImageInput(state, place, tab, name, uploads.store)
    # one after the other: what is shown is what is used
    after: Any = {"show_progress": "hidden", "concurrency_id": f"image of {name}"}

    def accept(event: gr.EventData) -> Values:
        return chosen.use(*taken(event, uploads))

    place.upload(accept, None, chosen.outputs, **after)
    place.clear(lambda: chosen.use(None), None, chosen.outputs, **after)
    if start:
        tab.label = marked(name)

        def first(current: StoredImage | None) -> StoredImage:
            # a quick visitor's own image may be there before
            return current or uploads.store.put(start.image, start.caption)

        page = Context.root_block
        assert page  # it is being built
        # set when the page loads, so that an expired session does not fall back to it
        page.load(first, state, state, **after)
    return chosen


def taken(event: gr.EventData, uploads: Uploads) -> tuple[StoredImage | None, str]:
    """The uploaded image that an event of the page names, and what is wrong if there is none."""
    if problem := field(event, "problem"):
        return None, str(problem)[:MAX_PROBLEM]
    try:
        return uploads.take(str(field(event, "token"))), ""
    except UserError as error:
        return None, str(error)


def selected(event: gr.EventData, count: int) -> int:
    """Index of the clicked image among `count` images.

    Raises:
        gr.Error: the index is not valid; such an event is not the page's own.
    """
    index = field(event, "index")
    if type(index) is not int or not 0 <= index < count:
        raise gr.Error("That image is no longer there", print_exception=False)
    return index


def field(event: gr.EventData, name: str) -> Any:
    """A field of an event's data; None if it is missing."""
    return event._data.get(name) if isinstance(event._data, dict) else None

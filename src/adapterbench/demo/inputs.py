"""Image input: upload or gallery, checked by the server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from adapterbench.core.errors import UserError
from adapterbench.demo import html, upload
from adapterbench.demo.upload import Uploads
from adapterbench.report.references import Reference

TEMPLATE = """<div class="chosen">${value}
<label class="upload"><input type="file" accept="image/png,image/jpeg,image/webp">
Upload an image</label></div>"""
SEND = """
element.addEventListener('change', async ({target}) => {
  const [file] = target.files
  if (!file) return
  const form = new FormData()
  form.append('files', file)
  target.value = ''  // so that the same file can be chosen again
  if (file.size > props.max_bytes) {
    return trigger('upload', {problem: `${file.name}: too many bytes. Use ${props.limits}`})
  }
  try {
    const answer = await fetch('gradio_api/upload', {method: 'POST', body: form})
    const content = await (answer.ok ? answer.json() : answer.text())
    trigger('upload', answer.ok ? {token: content[0]} : {problem: content})
  } catch (error) {
    trigger('upload', {problem: `${file.name} did not reach the server: try again`})
  }
})
"""
"""Script in the page; errors of the page, the server and the network are shown the same way."""
MAX_PROBLEM = 300
"""Most characters of an error message."""


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Show a `UserError` in the browser."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


def image_input(
    title: str,
    uploads: Uploads,
    gallery: Sequence[Reference] = (),
    start: Reference | None = None,
) -> gr.State:
    """An image input: upload an image or pick one of `gallery`.

    A refused upload clears the input and shows the cause, so that the previous image is not used by
    mistake.

    Args:
        title: label of the input.
        uploads: uploaded images that wait to be used.
        gallery: images to pick from.
        start: image that is selected at first.

    Returns:
        State with the session's `Reference`, checked by the server.
    """
    chosen = gr.State(None)
    # set when the page loads, so that an expired session does not fall back to `start`
    gr.on(fn=lambda: start, outputs=chosen, show_progress="hidden")
    place = gr.HTML(
        html.chosen(start),
        label=title,
        show_label=True,
        container=True,
        html_template=TEMPLATE,
        js_on_load=SEND,
        elem_classes="asked",
        max_bytes=upload.MAX_BYTES,
        limits=upload.limits(),
    )
    outputs = [chosen, place]

    def use(reference: Reference | None, problem: str = "") -> tuple[Reference | None, str]:
        return reference, html.chosen(reference, problem)

    def accept(event: gr.EventData) -> tuple[Reference | None, str]:
        if problem := field(event, "problem"):
            return use(None, str(problem)[:MAX_PROBLEM])
        try:
            return use(uploads.take(str(field(event, "token"))))
        except UserError as error:
            return use(None, str(error))

    place.upload(accept, None, outputs, show_progress="hidden")
    if gallery:
        pick = gr.Gallery(
            [reference.image for reference in gallery],
            label="or pick one: no adapter was trained on these",
            format="png",
            height=210,
            elem_classes="picks",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )

        def picked(event: gr.EventData) -> tuple[Reference | None, str]:
            return use(gallery[selected(event, len(gallery))])

        pick.select(picked, None, outputs, show_progress="hidden")
    else:
        gr.Button("Remove it", size="sm").click(lambda: use(None), None, outputs)
    return chosen


def selected(event: gr.EventData, count: int) -> int:
    """Index of the clicked image in a gallery of `count` images.

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

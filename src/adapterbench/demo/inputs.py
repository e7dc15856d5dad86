"""A picture that the user gives: shown, kept for the session, and refused with the cause."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.demo.upload import read_upload
from adapterbench.report.pictures import Reference


@contextmanager
def told_in_the_page() -> Iterator[None]:
    """Show a `UserError` to whom it is meant for, in the browser."""
    try:
        yield
    except UserError as error:
        raise gr.Error(escape(str(error)), print_exception=False) from error


def picture_input(
    title: str, gallery: Sequence[Reference] = (), start: Reference | None = None
) -> gr.State:
    """A place for a picture: upload one or pick one of `gallery`.

    Returns:
        The session's `Reference`, checked; what the browser sends is never used unchecked.
    """
    chosen = gr.State(start)
    with gr.Row():
        shown = gr.Image(
            start.image if start else None,
            label=title,
            interactive=False,
            format="png",
            height=190,
            elem_classes="asked",
            min_width=120,
            buttons=[],
        )
        with gr.Column(min_width=120):
            upload = gr.UploadButton("Upload a picture", file_types=["image"])
            named = gr.HTML(name_of(start))
    outputs = [chosen, shown, named]

    def use(reference: Reference | None) -> tuple[Reference | None, Image.Image | None, str]:
        return reference, reference.image if reference else None, name_of(reference)

    def accept(path: str) -> tuple[Reference | None, Image.Image | None, str]:
        with told_in_the_page():
            return use(read_upload(Path(path)))

    upload.upload(accept, upload, outputs)
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

        def picked(event: gr.SelectData) -> tuple[Reference | None, Image.Image | None, str]:
            return use(gallery[event.index])

        pick.select(picked, None, outputs)
    else:
        gr.Button("Remove it", size="sm").click(lambda: use(None), None, outputs)
    return chosen


def name_of(reference: Reference | None) -> str:
    """The line below the picture."""
    text = reference.caption if reference else ""
    return f'<p class="of-picture">{escape(text)}</p>'

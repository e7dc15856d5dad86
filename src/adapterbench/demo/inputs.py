"""A picture that the user gives: shown, kept for the session, and refused with the cause."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from markupsafe import escape

from adapterbench.demo.upload import LIMITS, read_upload
from adapterbench.errors import UserError
from adapterbench.report.pictures import Reference


@contextmanager
def told_in_the_page() -> Iterator[None]:
    """Show a `UserError` to whom it is meant for, in the browser."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(escape(str(error))), print_exception=False) from error


def picture_input(
    title: str, gallery: Sequence[Reference] = (), start: Reference | None = None
) -> gr.State:
    """A place for a picture: upload one or pick one of `gallery`.

    Returns:
        The session's `Reference`, checked; what the browser sends is never used unchecked.
    """
    chosen = gr.State(start)
    shown = gr.Image(
        start and start.image,
        label=caption(title, start),
        interactive=False,
        format="png",
        height=220,
        buttons=[],
    )
    outputs = [chosen, shown]

    def use(reference: Reference | None) -> tuple[Reference | None, gr.Image]:
        return reference, gr.Image(reference and reference.image, label=caption(title, reference))

    def accept(path: str) -> tuple[Reference | None, gr.Image]:
        with told_in_the_page():
            return use(read_upload(Path(path)))

    upload = gr.File(label=f"Upload: {LIMITS}", file_types=["image"], height=110)
    upload.upload(accept, upload, outputs).then(lambda: None, outputs=upload)
    if gallery:
        pick = gr.Gallery(
            [reference.image for reference in gallery],
            label="or pick one that no adapter was trained on",
            format="png",
            columns=8,
            height=190,
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )

        def picked(event: gr.SelectData) -> tuple[Reference | None, gr.Image]:
            return use(gallery[event.index])

        pick.select(picked, None, outputs)
    else:
        gr.Button("Remove", size="sm").click(lambda: use(None), None, outputs)
    return chosen


def caption(title: str, reference: Reference | None) -> str:
    """What stands over the picture."""
    return f"{title}: {reference.caption}" if reference else title

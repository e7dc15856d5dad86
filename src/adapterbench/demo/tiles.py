"""Images with captions to pick from: one Tab stop, arrows move between them."""

from collections.abc import Sequence

import gradio as gr

from adapterbench.demo import html
from adapterbench.report.references import Reference


def tiles(title: str, pictures: Sequence[Reference], kind: str) -> gr.HTML:
    """A component whose event `select` has the field `index`.

    Args:
        title: label of the tiles.
        pictures: images and captions.
        kind: style, `picks` or `examples`.
    """
    return gr.HTML(
        html.tiles(title, pictures, kind),
        label=title,
        js_on_load=html.script("tiles"),
        container=True,
        elem_classes="own",
    )

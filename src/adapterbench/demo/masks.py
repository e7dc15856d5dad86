"""Mask input: painted on a canvas, uploaded as an image, checked by the server."""

import json
from dataclasses import dataclass
from html import escape
from secrets import token_urlsafe

import gradio as gr
from PIL import Image, ImageStat

from adapterbench.core.errors import UserError
from adapterbench.demo import html, upload
from adapterbench.demo.inputs import Values, field, taken
from adapterbench.demo.prompting import MASK_SIDE
from adapterbench.demo.store import ImageStore, StoredImage
from adapterbench.demo.upload import Uploads


@dataclass(frozen=True, slots=True)
class MaskInput:
    """Where an image acts."""

    state: gr.State
    """The session's `StoredImage`, white where the image acts; None: everywhere."""
    place: gr.HTML
    store: ImageStore

    def use(self, mask: StoredImage | None, by: str | None = None) -> Values:
        """Updates that select a mask.

        Args:
            mask: its name.
            by: token of the canvas' own upload, which shows it already.
        """
        image = None
        if mask is not None:
            try:
                image = self.store.image(mask)
            except UserError as error:
                mask = None
                gr.Warning(escape(str(error)))
        return {self.state: mask, self.place: shown(image, by or token_urlsafe())}


def shown(mask: Image.Image | None = None, by: str = "") -> str:
    """Value of the canvas: a mask, what it does, and who sets it."""
    if mask is None:
        return json.dumps({"by": by, "mask": "", "told": "It acts everywhere."})
    share = ImageStat.Stat(mask.convert("L")).mean[0] / 255
    told = f"It acts in {share:.0%} of the image."
    return json.dumps({"by": by, "mask": html.data_uri(mask, MASK_SIDE), "told": told})


def mask_input(title: str, uploads: Uploads) -> MaskInput:
    """A canvas to paint a mask on.

    Args:
        title: label of the input.
        uploads: uploaded images that wait to be used.
    """
    state = gr.State(None)
    place = gr.HTML(
        shown(),
        label=title,
        html_template=html.mask_canvas(title, MASK_SIDE),
        js_on_load=html.script("post", "mask"),
        container=True,
        elem_classes="own",
        max_bytes=upload.MAX_BYTES,
        limits=upload.limits(),
    )
    mask = MaskInput(state, place, uploads.store)

    def accept_mask(event: gr.EventData) -> Values:
        stored, problem = taken(event, uploads)
        if stored is None:
            gr.Warning(escape(f"The mask is not used: {problem}"))
            return mask.use(None)
        painted = black_and_white(uploads.store.image(stored))
        kept = uploads.store.put(painted, f"mask of {title}") if painted.getbbox() else None
        return mask.use(kept, str(field(event, "token")))

    place.upload(accept_mask, None, [state, place], show_progress="hidden")
    place.clear(lambda: mask.use(None), None, [state, place], show_progress="hidden")
    return mask


def black_and_white(image: Image.Image) -> Image.Image:
    """A mask of `MASK_SIDE` x `MASK_SIDE` pixels, 0 or 255 (`L`), of an RGB image."""
    grey = image.convert("L").resize((MASK_SIDE, MASK_SIDE))
    return grey.point(lambda level: 255 * (level >= 128))

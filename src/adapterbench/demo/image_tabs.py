"""The images that can be given, a tab for each, and images to pick from for the open tab."""

from collections.abc import Callable, Sequence

import gradio as gr

from adapterbench.core.config import SampleParams
from adapterbench.demo import settings
from adapterbench.demo.controls import Slot
from adapterbench.demo.inputs import ImageInput, Values, image_input, selected
from adapterbench.demo.masks import mask_input
from adapterbench.demo.tiles import tiles
from adapterbench.demo.upload import Uploads
from adapterbench.report.references import Reference

START = 2
"""Index of the image that is selected at first: one of a kind that the model generates well."""


def image_tabs(
    references: Sequence[Reference], defaults: SampleParams, uploads: Uploads, controlled: bool
) -> tuple[list[Slot], ImageInput, ImageInput | None]:
    """Inputs of the reference images, the negative image and the control image.

    Args:
        references: images to pick from.
        defaults: has the scale.
        uploads: uploaded images that wait to be used.
        controlled: whether there is a ControlNet.
    """
    first = references[START % len(references)]
    control = None
    with gr.Group(elem_classes="images"):
        with gr.Tabs(overflow_behavior="wrap"):
            slots = [
                slot(number, defaults, uploads, first if number == 1 else None)
                for number in range(1, settings.REFERENCES + 1)
            ]
            negative = explained("Negative", "Guidance leads away from this image.", uploads)
            if controlled:
                control = explained("Outlines", "The outlines of this image are kept.", uploads)
        pick_from(
            references,
            [*(slot.image for slot in slots), negative, *([control] if control else [])],
        )
    return slots, negative, control


def slot(number: int, defaults: SampleParams, uploads: Uploads, start: Reference | None) -> Slot:
    """A tab with a reference image, its scale and mask."""
    name = f"Image {number}"
    with gr.Tab(name) as tab:
        image = image_input(name, tab, uploads, start)
        scale = gr.Slider(
            *settings.SCALE,
            defaults.scale,
            step=0.05,
            label=f"Scale of image {number}",
            info="its weight",
        )
        with gr.Accordion(f"Where image {number} acts", open=False):
            mask = mask_input(f"Mask of image {number}", uploads)
    return Slot(image=image, mask=mask, scale=scale)


def explained(name: str, hint: str, uploads: Uploads) -> ImageInput:
    """A tab with an image that is no reference, and a sentence on what it does."""
    with gr.Tab(name) as tab:
        return image_input(name, tab, uploads, hint=hint)


def pick_from(references: Sequence[Reference], images: Sequence[ImageInput]) -> None:
    """Images to pick from; a click gives one to the open tab."""
    open_tab = gr.State(0)
    for number, image in enumerate(images):
        image.tab.select(constant(number), None, open_tab, show_progress="hidden")

    def picked(event: gr.EventData, number: int) -> Values:
        reference, image = references[selected(event, len(references))], images[number]
        return image.use(image.store.put(reference.image, reference.caption))

    tiles("or pick one: no adapter was trained on these", references, "picks").select(
        picked,
        open_tab,
        [part for image in images for part in image.outputs],
        show_progress="hidden",
    )


def constant(number: int) -> Callable[[], int]:
    """A function that returns `number`."""
    return lambda: number

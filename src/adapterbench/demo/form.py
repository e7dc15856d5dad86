"""The left side of the page: the input components."""

from collections.abc import Mapping, Sequence
from random import randrange

import gradio as gr

from adapterbench.core.config import SampleParams
from adapterbench.demo import grid, settings
from adapterbench.demo.controls import Controls
from adapterbench.demo.generator import TEXT_ONLY, ImageGenerator
from adapterbench.demo.image_tabs import image_tabs
from adapterbench.demo.inputs import ImageInput, Values, selected
from adapterbench.demo.references import Example
from adapterbench.demo.tiles import tiles
from adapterbench.demo.upload import Uploads
from adapterbench.report.methods import label
from adapterbench.report.references import Reference

FITS = [("crop the centre, as in training", "crop"), ("pad with white", "pad"), ("tiles", "tiles")]


def form(
    generator: ImageGenerator,
    references: Sequence[Reference],
    examples: Sequence[Example],
    defaults: SampleParams,
    uploads: Uploads,
) -> tuple[Controls, gr.Button, gr.Button]:
    """The input components and the start and stop buttons.

    Args:
        generator: knows methods, base models and presets.
        references: images to pick from.
        examples: images with texts.
        defaults: initial values of the sliders.
        uploads: uploaded images that wait to be used.
    """
    text = gr.Textbox(
        label="Text", placeholder="optional, such as: a red hat", max_length=settings.MAX_TEXT
    )
    slots, negative_image, control = image_tabs(
        references, defaults, uploads, controlled=generator.controlnet is not None
    )
    if examples:
        offer_examples(examples, slots[0].image, text)
    methods = gr.CheckboxGroup(
        [(label(method), method) for method in generator.methods],
        value=[method for method in generator.methods if method != TEXT_ONLY],
        label="Adapters, side by side",
        info="Text only is the base model without any.",
    )
    with gr.Row():
        start_button = gr.Button("Generate", variant="primary", scale=3)
        stop_button = gr.Button("Stop", scale=1)
    with gr.Row():
        guidance_scale = gr.Slider(
            *settings.GUIDANCE_SCALE,
            defaults.guidance_scale,
            step=0.5,
            label="Guidance",
            info="weight of all prompts",
        )
        steps = gr.Slider(
            *settings.STEPS, defaults.steps, step=1, label="Steps", info="more is slower"
        )
    with gr.Row():
        seed = gr.Number(0, label="Seed", info="same seed, same noise", precision=0, min_width=140)
        another = gr.Button("Another seed", size="sm", min_width=120, elem_classes="another")
        another.click(lambda: randrange(settings.SEED[1] + 1), outputs=seed)
    with gr.Accordion("Grid over scale and seed", open=False):
        scales, seeds = grid_axes()
    with gr.Accordion("Steps and layers that the images act in", open=False):
        start, end, layers = where(generator.presets)
    with gr.Accordion("More", open=False):
        negative_text = gr.Textbox(
            label="Negative text",
            placeholder="what the image should not show",
            max_length=settings.MAX_TEXT,
        )
        fit = gr.Dropdown(FITS, value="crop", label="Images that are not square")
        base = gr.Dropdown(
            list(generator.bases),
            label="Base model",
            info="The adapters were trained over the first one.",
        )
    controls = Controls(
        slots=slots,
        negative_image=negative_image,
        control=control,
        methods=methods,
        text=text,
        negative_text=negative_text,
        layers=layers,
        start=start,
        end=end,
        fit=fit,
        guidance_scale=guidance_scale,
        steps=steps,
        seed=seed,
        base=base,
        scales=scales,
        seeds=seeds,
    )
    return controls, start_button, stop_button


def grid_axes() -> tuple[gr.Textbox, gr.Textbox]:
    """Numbers of the two axes of a grid."""
    with gr.Row():
        scales = gr.Textbox(
            label="Scales of image 1",
            placeholder="0.4, 0.8, 1.2",
            info="a column each",
            max_length=grid.MAX_TYPED,
            min_width=140,
        )
        seeds = gr.Textbox(
            label="Seeds",
            placeholder="0, 1, 2",
            info="a row each",
            max_length=grid.MAX_TYPED,
            min_width=140,
        )
    gr.Markdown(
        f"Empty: the values above. Up to {grid.MAX_IMAGES} images at once.", elem_classes="hint"
    )
    return scales, seeds


def where(presets: Mapping[str, Sequence[str]]) -> tuple[gr.Slider, gr.Slider, gr.Radio]:
    """Steps and layers; `presets` are methods by the name of a preset."""
    with gr.Row():
        start = gr.Slider(0, 1, 0, step=0.05, label="Start", info="share of the steps")
        end = gr.Slider(0, 1, 1, step=0.05, label="End", info="share of the steps")
    measured = "; ".join(
        f"{name}: {', '.join(map(label, methods))}" for name, methods in presets.items()
    )
    layers = gr.Radio(
        [settings.ALL_LAYERS, *presets],
        value=settings.ALL_LAYERS,
        label="Layers",
        info=f"Presets that were measured. {measured}.",
        visible=bool(presets),
    )
    return start, end, layers


def offer_examples(examples: Sequence[Example], image: ImageInput, text: gr.Textbox) -> None:
    """Images with texts; a click takes both."""
    store = image.store
    shown = [Reference(example.reference.image, example.text) for example in examples]

    def take_example(event: gr.EventData) -> Values:
        example = examples[selected(event, len(examples))]
        stored = store.put(example.reference.image, example.reference.caption)
        return {**image.use(stored), text: example.text}

    tiles("Examples: an image and a text", shown, "examples").select(
        take_example, None, [*image.outputs, text], show_progress="hidden"
    )

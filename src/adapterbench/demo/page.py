"""The page: layout and event handlers."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from random import randrange
from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj, traverse

from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.demo import html, settings
from adapterbench.demo.folder import ImageFolder
from adapterbench.demo.generator import TEXT_ONLY, Finished, ImageGenerator
from adapterbench.demo.inputs import image_input, selected, show_user_errors
from adapterbench.demo.progress import Progress
from adapterbench.demo.results import results_tab
from adapterbench.demo.settings import Settings
from adapterbench.demo.upload import Uploads
from adapterbench.report.methods import label
from adapterbench.report.references import Reference

INTRODUCTION = """# adapterbench
An **image as a prompt**: choose one, press *Generate*, and compare the images of the adapters. All
use the same frozen Stable Diffusion and the same noise.
"""
QUEUE = 64
"""Most waiting requests; further ones are refused with a message."""
SESSIONS = 300
"""Most sessions in memory; the least recently used are dropped."""
HISTORY = 24
"""Most images of a session."""
START = 2
"""Index of the image that is selected at first: one of a kind that the model generates well."""
CONTROL = "Control image: its outlines are kept"
RESULT = "result"
SCROLL = f"""() => {{
  const result = document.getElementById('{RESULT}')
  const {{top, bottom}} = result.getBoundingClientRect()
  if (top < 0 || top > window.innerHeight / 2) {{
    result.scrollIntoView({{behavior: 'smooth', block: 'start'}})
  }}
}}"""
"""Scroll to the images if they are out of view, as on a phone."""

Values = dict[Any, Any]
"""Values of the page's components, by component."""


class Page(gr.Blocks):
    """A Gradio page without file inputs.

    Gradio looks for file references in the data of any input, copies or downloads those files and
    trusts them later. Here images arrive through `Uploads` only.
    """

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *args: Any, **more: Any
    ) -> Any:
        """Check that no input refers to a file."""
        traverse(inputs, refuse_file, is_file_obj)
        return await super().preprocess_data(block_fn, inputs, *args, **more)


def refuse_file(_: object) -> None:
    """Refuse a file reference; only programs send one, the page never does."""
    raise gr.Error("No input of this page is a file", print_exception=False)


@dataclass(frozen=True, kw_only=True)
class Controls:
    """The input components."""

    reference: gr.State
    control: gr.State
    methods: gr.CheckboxGroup
    text: gr.Textbox
    negative_text: gr.Textbox
    scale: gr.Slider
    guidance_scale: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    base: gr.Dropdown

    def settings(self, values: Values) -> Settings:
        """The settings of the inputs, checked.

        Raises:
            UserError: there is no image prompt, or a value is not allowed.
        """
        if values[self.reference] is None:
            raise UserError("There is no image prompt yet: upload an image or pick one")
        control = values[self.control]
        return settings.parse_settings(
            method="",
            base=values[self.base],
            image_prompt=values[self.reference].caption,
            text=values[self.text] or "",
            negative_text=values[self.negative_text] or "",
            control=control and control.caption,
            scale=values[self.scale],
            guidance_scale=values[self.guidance_scale],
            steps=values[self.steps],
            seed=values[self.seed] or 0,
        )

    def chosen_methods(self, values: Values, known: Sequence[str]) -> list[str]:
        """The selected methods, in the order of `known`.

        Raises:
            UserError: none is selected.
        """
        ticked = values[self.methods]
        if methods := [m for m in known if isinstance(ticked, list) and m in ticked]:
            return methods
        raise UserError("Nothing to compare: tick at least one adapter")


@dataclass(frozen=True, kw_only=True)
class Views:
    """The output components."""

    strip: gr.HTML
    history: gr.State
    """`list[tuple[Path, Settings]]`, newest first."""
    gallery: gr.Gallery
    settings: gr.HTML
    download: gr.DownloadButton

    def selected(self, history: list[tuple[Path, Settings]], number: int) -> Values:
        """Updates that show the settings of an image and offer its file for download.

        Raises:
            UserError: the file has been deleted.
        """
        path, of_image = history[number]
        if not path.exists():
            raise UserError("That image is no longer kept: generate it again")
        return {
            self.settings: html.definitions(readable(of_image)),
            self.download: gr.DownloadButton(value=path, interactive=True),
        }


def build(
    generator: ImageGenerator,
    references: Sequence[Reference],
    defaults: SampleParams,
    results: Path,
    folder: Path,
    uploads: Uploads,
) -> Page:
    """Build the page.

    Args:
        generator: generates the images.
        references: images to pick from.
        defaults: initial values of the sliders.
        results: folder of the pipeline's results.
        folder: Gradio's file folder, for generated images.
        uploads: uploaded images that wait to be used.
    """
    page = Page(title="adapterbench", analytics_enabled=False)
    page.state_session_capacity = SESSIONS
    with page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("Try it"):
            try_tab(generator, references, defaults, ImageFolder(folder), uploads)
        with gr.Tab("Results"):
            results_tab(results)
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def try_tab(
    generator: ImageGenerator,
    references: Sequence[Reference],
    defaults: SampleParams,
    folder: ImageFolder,
    uploads: Uploads,
) -> None:
    """Build the tab *Try it*."""
    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            controls, start, stop = ask(generator, references, defaults, uploads)
        with gr.Column(scale=7, min_width=340, elem_id=RESULT):
            views = show()

    def generate(values: Values) -> Iterator[Values]:
        with show_user_errors():
            methods = controls.chosen_methods(values, generator.methods)
            common = controls.settings(values)
            reference, control = values[controls.reference], values[controls.control]
            made: list[tuple[Path, Settings]] = []
            progress = Progress(reference.image, methods, common.steps)
            yield {views.strip: progress.html()}
            events = generator.generate(common, methods, reference.image, control and control.image)
            with closing(events):  # *Stop* ends the generation, too
                for event in events:
                    yield {views.strip: progress.after(event)}
                    if isinstance(event, Finished):
                        made.append((folder.save(event.image, event.settings), event.settings))
            history = [*made, *values[views.history]][:HISTORY]
            history = [(path, used) for path, used in history if path.exists()]
            yield {
                views.history: history,
                views.gallery: gr.Gallery(
                    [(path, described(used)) for path, used in history], selected_index=0
                ),
                **views.selected(history, 0),
            }

    def select(event: gr.EventData, history: list[tuple[Path, Settings]]) -> Values:
        with show_user_errors():
            return views.selected(history, selected(event, len(history)))

    start.click(None, js=SCROLL)
    running = start.click(
        generate,
        {*vars(controls).values(), views.history},
        [*vars(views).values()],
        show_progress_on=views.strip,
        preprocess=False,  # `Settings` checks the values, with better messages
    )
    stop.click(None, cancels=running)
    views.gallery.select(select, views.history, [views.settings, views.download])


def ask(
    generator: ImageGenerator,
    references: Sequence[Reference],
    defaults: SampleParams,
    uploads: Uploads,
) -> tuple[Controls, gr.Button, gr.Button]:
    """The left side: the input components and the start and stop buttons."""
    first = references[START % len(references)]
    reference = image_input("Image prompt", uploads, references, first)
    text = gr.Textbox(
        label="Text",
        placeholder="optional, such as: a red hat",
        max_length=settings.MAX_TEXT,
    )
    methods = gr.CheckboxGroup(
        [(label(method), method) for method in generator.methods],
        value=[method for method in generator.methods if method != TEXT_ONLY],
        label="Adapters, side by side",
        info="Text only is the base model without any.",
    )
    with gr.Row():
        start = gr.Button("Generate", variant="primary", scale=3)
        stop = gr.Button("Stop", scale=1)
    with gr.Row():
        scale = gr.Slider(
            *settings.SCALE,
            defaults.scale,
            step=0.05,
            label="Scale",
            info="weight of the image prompt",
        )
        guidance_scale = gr.Slider(
            *settings.GUIDANCE_SCALE,
            defaults.guidance_scale,
            step=0.5,
            label="Guidance",
            info="weight of all prompts",
        )
    with gr.Row():
        steps = gr.Slider(
            *settings.STEPS, defaults.steps, step=1, label="Steps", info="more is slower"
        )
        with gr.Column(min_width=160):
            seed = gr.Number(0, label="Seed", info="same seed, same noise", precision=0)
            another = gr.Button("Another seed", size="sm")
            another.click(lambda: randrange(settings.SEED[1] + 1), outputs=seed)
    with gr.Accordion("More", open=False):
        negative_text = gr.Textbox(
            label="Negative text",
            placeholder="what the image should not show",
            max_length=settings.MAX_TEXT,
        )
        base = gr.Dropdown(
            list(generator.bases),
            label="Base model",
            info="The adapters were trained over the first one.",
        )
        control = image_input(CONTROL, uploads) if generator.controlnet else gr.State(None)
    controls = Controls(
        reference=reference,
        control=control,
        methods=methods,
        text=text,
        negative_text=negative_text,
        scale=scale,
        guidance_scale=guidance_scale,
        steps=steps,
        seed=seed,
        base=base,
    )
    return controls, start, stop


def show() -> Views:
    """The right side: the output components."""
    strip = gr.HTML("The images will appear here.")
    history = gr.State([])
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
    download = gr.DownloadButton(
        "Download the chosen image (PNG with its settings)", size="sm", interactive=False
    )
    settings = gr.HTML()
    return Views(
        strip=strip, history=history, gallery=gallery, settings=settings, download=download
    )


def described(settings: Settings) -> str:
    """Caption of an image in the gallery."""
    return f"{label(settings.method)}, scale {settings.scale:g}, seed {settings.seed}"


def readable(of_image: Settings) -> dict[str, str]:
    """Settings as text, by their titles."""
    named = asdict(of_image) | {"method": label(of_image.method)}
    return {settings.title(name): in_words(value) for name, value in named.items()}


def in_words(value: object) -> str:
    """A setting's value as text."""
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value in ("", None) else str(value)

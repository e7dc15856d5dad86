"""The page: what stands where, and what happens on a click."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from random import randrange
from typing import Any

import gradio as gr

from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.demo import html
from adapterbench.demo.inputs import picture_input, told_in_the_page
from adapterbench.demo.painter import TEXT_ONLY, Painter
from adapterbench.demo.picture import Picture, Settings
from adapterbench.demo.progress import Progress
from adapterbench.demo.results import results_tab
from adapterbench.report.methods import label
from adapterbench.report.pictures import Reference

INTRODUCTION = """# adapterbench
A **picture as a prompt**: choose one, press *Generate*, and see what each adapter makes of it over
the same frozen Stable Diffusion, from the same noise.
"""
QUEUE = 16
"""Requests that may wait; further ones are told so."""
HISTORY = 24
"""Pictures that a session keeps."""
HOUR = 3600
START = 2
"""The picture that is there at once; of the emoji, one of a kind that the model paints well."""
SEEDS = 2**32
CONTROL = "Control image: its outlines are kept"

Values = dict[Any, Any]
"""What the components of the page hold, by component; or what they shall."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """The components that say what to make."""

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
        """What the user has set.

        Raises:
            UserError: no picture, or no method.
        """
        if values[self.reference] is None:
            raise UserError("There is no image prompt yet: upload a picture or pick one")
        if not values[self.methods]:
            raise UserError("Nothing to compare: tick at least one adapter")
        control = values[self.control]
        return Settings(
            method="",
            base=values[self.base],
            image_prompt=values[self.reference].caption,
            text=values[self.text] or "",
            negative_text=values[self.negative_text] or "",
            control=control and control.caption,
            scale=values[self.scale],
            guidance_scale=values[self.guidance_scale],
            steps=values[self.steps],
            seed=int(values[self.seed] or 0),
        )


@dataclass(frozen=True, kw_only=True)
class Views:
    """The components that show what was made."""

    strip: gr.HTML
    history: gr.State
    """`list[tuple[Path, Settings]]`, newest first."""
    gallery: gr.Gallery
    settings: gr.HTML
    download: gr.DownloadButton

    def selected(self, history: list[tuple[Path, Settings]], number: int) -> Values:
        """Show the settings of a picture, and offer its file."""
        path, settings = history[number]
        return {
            self.settings: html.definitions(readable(settings)),
            self.download: gr.DownloadButton(value=path, interactive=True),
        }


def build(
    painter: Painter,
    references: Sequence[Reference],
    defaults: SampleParams,
    results: Path,
    folder: Path,
) -> gr.Blocks:
    """The whole page.

    Args:
        references: pictures to pick from.
        defaults: where the sliders stand first.
        results: of the pipeline.
        folder: where Gradio keeps its files; pictures go there, too.
    """
    keep = (HOUR, 24 * HOUR)
    page = gr.Blocks(title="adapterbench", analytics_enabled=False, delete_cache=keep)
    with page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("Try it"):
            try_tab(painter, references, defaults, folder)
        with gr.Tab("Results"):
            results_tab(results)
    return page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)


def try_tab(
    painter: Painter, references: Sequence[Reference], defaults: SampleParams, folder: Path
) -> None:
    """Fill the tab that is being built."""
    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            controls, start, stop = ask(painter, references, defaults)
        with gr.Column(scale=7, min_width=340):
            views = show()

    def generate(values: Values) -> Iterator[Values]:
        with told_in_the_page():
            settings = controls.settings(values)
            methods = [m for m in painter.methods if m in values[controls.methods]]
            reference, control = values[controls.reference], values[controls.control]
            made: list[tuple[Path, Settings]] = []
            progress = Progress(reference.image, methods, settings.steps)
            yield {views.strip: progress.html()}
            painting = painter.paint(settings, methods, reference.image, control and control.image)
            with closing(painting) as events:  # *Stop* ends the painting, too
                for event in events:
                    yield {views.strip: progress.after(event)}
                    if isinstance(event, Picture):
                        made.append((event.save(folder), event.settings))
        history = [*made, *values[views.history]][:HISTORY]
        yield {
            views.history: history,
            views.gallery: gr.Gallery(
                [(path, described(each)) for path, each in history], selected_index=0
            ),
            **views.selected(history, 0),
        }

    def select(event: gr.SelectData, history: list[tuple[Path, Settings]]) -> Values:
        return views.selected(history, event.index)

    asked = {*vars(controls).values(), views.history}
    running = start.click(
        generate,
        asked,
        [*vars(views).values()],
        show_progress_on=views.strip,
        scroll_to_output=True,
    )
    stop.click(None, cancels=running)
    views.gallery.select(select, views.history, [views.settings, views.download])


def ask(
    painter: Painter, references: Sequence[Reference], defaults: SampleParams
) -> tuple[Controls, gr.Button, gr.Button]:
    """The left side: the controls, and the buttons that start and stop."""
    reference = picture_input("Image prompt", references, references[START % len(references)])
    text = gr.Textbox(label="Text", placeholder="optional, such as: a red hat", max_length=300)
    methods = gr.CheckboxGroup(
        [(label(method), method) for method in painter.methods],
        value=[method for method in painter.methods if method != TEXT_ONLY],
        label="Adapters, side by side",
        info="Text only is the base model without any.",
    )
    with gr.Row():
        start = gr.Button("Generate", variant="primary", scale=3)
        stop = gr.Button("Stop", scale=1)
    with gr.Row():
        scale = gr.Slider(
            0, 1.5, defaults.scale, step=0.05, label="Scale", info="weight of the image prompt"
        )
        guidance_scale = gr.Slider(
            1, 10, defaults.guidance_scale, step=0.5, label="Guidance", info="how far prompts push"
        )
    with gr.Row():
        steps = gr.Slider(1, 50, defaults.steps, step=1, label="Steps", info="more is slower")
        with gr.Column(min_width=160):
            seed = gr.Number(
                0,
                label="Seed",
                info="same seed, same noise",
                precision=0,
                minimum=0,
                maximum=SEEDS - 1,
            )
            gr.Button("Another seed", size="sm").click(lambda: randrange(SEEDS), outputs=seed)
    with gr.Accordion("More", open=False):
        negative_text = gr.Textbox(
            label="Negative text", placeholder="what the picture should not show", max_length=300
        )
        base = gr.Dropdown(
            list(painter.bases),
            label="Base model",
            info="The adapters were trained over the first.",
        )
        control = picture_input(CONTROL) if painter.controlnet else gr.State(None)
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
    """The right side."""
    strip = gr.HTML("The pictures will appear here.")
    history = gr.State([])
    gallery = gr.Gallery(
        label="Pictures of this session",
        columns=5,
        height="auto",
        elem_classes="session",
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        buttons=[],
    )
    download = gr.DownloadButton(
        "Download the chosen picture (PNG with its settings)", size="sm", interactive=False
    )
    settings = gr.HTML()
    return Views(
        strip=strip, history=history, gallery=gallery, settings=settings, download=download
    )


def described(settings: Settings) -> str:
    """A caption."""
    return f"{label(settings.method)}, scale {settings.scale:g}, seed {settings.seed}"


def readable(settings: Settings) -> dict[str, Any]:
    """Settings for people."""
    named = asdict(settings) | {"method": label(settings.method)}
    return {
        name.replace("_", " ").capitalize(): "-" if value in ("", None) else value
        for name, value in named.items()
    }

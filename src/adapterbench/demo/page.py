"""The page: layout and event handlers."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj, traverse

from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.demo.controls import inputs
from adapterbench.demo.folder import FileFolder, Saved
from adapterbench.demo.form import form
from adapterbench.demo.generator import Finished, ImageGenerator
from adapterbench.demo.inputs import Values, selected, show_user_errors
from adapterbench.demo.progress import Progress
from adapterbench.demo.references import Example
from adapterbench.demo.results import results_tab
from adapterbench.demo.upload import Uploads
from adapterbench.demo.views import views
from adapterbench.report.references import Reference

INTRODUCTION = """# adapterbench
An **image as a prompt**: choose one, press *Generate*, and compare the images of the adapters. All
use the same frozen Stable Diffusion and the same noise.
"""
QUEUE = 64
"""Most waiting requests; further ones are refused with a message."""
SESSIONS = 300
"""Most sessions in memory; the least recently used are dropped."""
RESULT = "result"
SCROLL = f"""() => {{
  const result = document.getElementById('{RESULT}')
  const {{top, bottom}} = result.getBoundingClientRect()
  if (top < 0 || top > window.innerHeight / 2) {{
    result.scrollIntoView({{behavior: 'smooth', block: 'start'}})
  }}
}}"""
"""Scroll to the images if they are out of view, as on a phone."""
TO_TOP = "() => window.scrollTo({top: 0, behavior: 'smooth'})"


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


def build(
    generator: ImageGenerator,
    references: Sequence[Reference],
    examples: Sequence[Example],
    defaults: SampleParams,
    results: Path,
    folder: Path,
    uploads: Uploads,
) -> Page:
    """Build the page.

    Args:
        generator: generates the images.
        references: images to pick from.
        examples: images with texts; may be empty.
        defaults: initial values of the sliders.
        results: folder of the pipeline's results.
        folder: Gradio's file folder, for generated images.
        uploads: uploaded images that wait to be used.
    """
    page = Page(title="adapterbench", analytics_enabled=False)
    page.state_session_capacity = SESSIONS
    files = FileFolder(folder)
    with page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("Try it"):
            try_tab(generator, references, examples, defaults, files, uploads)
        with gr.Tab("Results"):
            results_tab(results, files)
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def try_tab(
    generator: ImageGenerator,
    references: Sequence[Reference],
    examples: Sequence[Example],
    defaults: SampleParams,
    folder: FileFolder,
    uploads: Uploads,
) -> None:
    """Build the tab *Try it*."""
    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            controls, start, stop = form(generator, references, examples, defaults, uploads)
        with gr.Column(scale=7, min_width=340, elem_id=RESULT):
            shown = views(folder, uploads.store)

    def generate(values: Values) -> Iterator[Values]:
        with show_user_errors():
            images = controls.plan(values, generator.methods)
            given = inputs(images[0], uploads.store)
            made: list[Saved] = []
            progress = Progress(titled(given.images), images)
            yield {shown.strip: progress.html()}
            with closing(generator.generate(images, given)) as events:  # *Stop* ends it, too
                for event in events:
                    yield {shown.strip: progress.after(event)}
                    if isinstance(event, Finished):
                        made.append(folder.save(event.image, event.settings))
            yield shown.added(made, values[shown.history])

    def select(event: gr.EventData, history: list[Saved]) -> Values:
        with show_user_errors():
            return shown.selected(history, selected(event, len(history)))

    def use_again(image: Saved | None) -> Values:
        with show_user_errors():
            if image is None:
                raise UserError("There is no image yet whose settings could be used")
            return controls.restore(image.settings)

    start.click(None, js=SCROLL)
    running = start.click(
        generate,
        {*controls.components, shown.history},
        shown.components,
        show_progress_on=shown.strip,
        preprocess=False,  # `Settings` checks the values, with better messages
    )
    stop.click(None, cancels=running)
    shown.gallery.select(
        select,
        shown.history,
        [shown.chosen, shown.settings, shown.download, shown.again],
    )
    restored = shown.again.click(use_again, shown.chosen, controls.shown, show_progress="hidden")
    restored.success(None, js=TO_TOP)


def titled(references: Sequence[Any]) -> list[tuple[str, Any]]:
    """Titles of the reference images in the progress."""
    if len(references) == 1:
        return [("Image prompt", references[0])]
    return [(f"Image {number}", image) for number, image in enumerate(references, 1)]

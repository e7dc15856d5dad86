"""Buttons that make a file and download it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from adapterbench.demo.inputs import show_user_errors

CLICK = """() => new Promise((resolve) => setTimeout(() => {
  document.querySelector('#%s').click()
  resolve()
}, 100))"""
"""Click a link, after the page has shown its new address."""


def download_made(
    title: str, make: Callable[..., Path], inputs: Sequence[Any], name: str
) -> gr.Button:
    """A button that calls `make` and downloads the file.

    Args:
        title: of the button.
        make: returns the file's path; its `UserError`s are shown.
        inputs: components whose values `make` gets.
        name: unique HTML id, also the name of the event.
    """
    button = gr.Button(title, size="sm", elem_classes=name)
    link = gr.DownloadButton(visible="hidden", elem_id=name)

    def make_file(*values: Any) -> Path:
        with show_user_errors():
            return make(*values)

    make_file.__name__ = name
    made = button.click(make_file, inputs, link, show_progress="hidden", preprocess=False)
    made.success(None, js=CLICK % name)
    return button

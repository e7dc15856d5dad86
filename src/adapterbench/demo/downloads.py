"""Buttons that make a file and download it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from adapterbench.demo.inputs import show_user_errors

DOWNLOAD = """(file) => {
  const link = document.createElement('a')
  link.href = file.url
  link.download = file.orig_name
  link.click()
}"""
"""Download the file of an output."""


def download_made(
    title: str, make: Callable[..., Path], inputs: Sequence[Any], name: str
) -> gr.Button:
    """A button that calls `make` and downloads the file.

    Args:
        title: of the button.
        make: returns the file's path; its `UserError`s are shown.
        inputs: components whose values `make` gets.
        name: unique; CSS class of the button and name of the event.
    """
    button = gr.Button(title, size="sm", elem_classes=name)
    made = gr.DownloadButton(visible="hidden")

    def make_file(*values: Any) -> Path:
        with show_user_errors():
            return make(*values)

    make_file.__name__ = name
    click = button.click(make_file, inputs, made, show_progress="hidden", preprocess=False)
    click.success(None, made, js=DOWNLOAD)
    return button

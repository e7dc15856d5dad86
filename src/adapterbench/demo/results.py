"""The second tab: what the pipeline measured, from the files in `results/`."""

from pathlib import Path

import gradio as gr

TABLES = ("comparison.md", "comparison_image_text.md")
FIRST = "pareto"
"""The figure that stands first."""


def results_tab(results: Path) -> None:
    """Fill the tab that is being built: tables, then figures, the Pareto plot first."""
    tables = [results / name for name in TABLES if (results / name).is_file()]
    figures = sorted((results / "figures").glob("*.png"), key=lambda path: path.stem != FIRST)
    if not tables and not figures:
        gr.Markdown(f"Nothing measured yet in `{results}`: `make repro` fills it.")
    for path in tables:
        gr.Markdown(path.read_text(encoding="utf-8"), elem_classes="results")
    for path in figures:
        gr.Image(
            path,
            label=path.stem.replace("_", " ").capitalize(),
            interactive=False,
            buttons=["download", "fullscreen"],
        )

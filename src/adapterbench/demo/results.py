"""The second tab: tables and figures from the files in `results/`."""

from pathlib import Path

import gradio as gr

from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report import sheets, table
from adapterbench.report.markdown import HOW_TO_READ, ROWS

FIRST = "pareto"
"""Figure that is shown first."""
REPORT = "report.html"


def results_tab(results: Path) -> None:
    """Build the tab: the tables, then the figures, the Pareto plot first."""
    if not (results / table.FILES["image"]).is_file():
        gr.Markdown(f"There are no results in `{results}` yet: run `make repro`.")
        return
    for protocol, comparison in table.read(results).items():
        gr.Markdown(f"## {PROTOCOLS[protocol].title.capitalize()}")
        gr.Markdown(sheets.headline(comparison).markdown(), elem_classes="comparison")
    gr.Markdown(f"{HOW_TO_READ}\n\n{ROWS}")
    if (results / REPORT).is_file():
        gr.DownloadButton("The whole report (HTML)", results / REPORT, size="sm")
    figures = (results / "figures").glob("*.png")
    for path in sorted(figures, key=lambda path: (path.stem != FIRST, path.stem)):
        gr.Markdown(f"## {path.stem.replace('_', ' ').capitalize()}")
        gr.Image(str(path), show_label=False, interactive=False, buttons=["fullscreen"])

"""The second tab: tables, trade-offs and figures from the files in `results/`."""

from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from adapterbench.demo.folder import FileFolder
from adapterbench.demo.results_table import table_part
from adapterbench.demo.trade_offs import trade_off_part
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report import table
from adapterbench.report.captions import ALTS, ITEMS, captions_of
from adapterbench.report.markdown import HOW_TO_READ, ROWS

FIRST = "pareto"
"""Figure that is shown first."""
REPORT = "report.html"


def results_tab(results: Path, folder: FileFolder) -> None:
    """Build the tab: the table, a trade-off of two numbers, then the figures.

    Args:
        results: folder of the pipeline's results.
        folder: for the files that visitors download.
    """
    if not (results / table.FILES["image"]).is_file():
        gr.Markdown(f"There are no results in `{results}` yet: run `make repro`.")
        return
    comparisons = table.read(results)
    protocol = gr.Radio(
        [(PROTOCOLS[name].title.capitalize(), name) for name in comparisons],
        value=next(iter(comparisons)),
        label="Prompt",
    )
    table_part(comparisons, protocol, folder)
    gr.Markdown(f"{HOW_TO_READ}\n\n{ROWS}", elem_classes="hint")
    trade_off_part(comparisons, protocol)
    if (results / REPORT).is_file():
        gr.DownloadButton("The whole report (HTML)", results / REPORT, size="sm")
    rows = min(ITEMS, next(iter(comparisons.values())).size[0])
    figures_part(results / "figures", captions_of(rows))


def figures_part(figures: Path, captions: Mapping[str, str]) -> None:
    """The figures with captions, `FIRST` first."""
    gr.Markdown("## Figures")
    for path in sorted(figures.glob("*.png"), key=lambda path: (path.stem != FIRST, path.stem)):
        kind, _, variant = path.stem.partition(".")
        name = " ".join([kind, variant]).strip().replace("_", " ").capitalize()
        gr.Markdown(f"### {name}")
        gr.Image(
            str(path),
            label=ALTS.get(kind, name),
            show_label=False,
            interactive=False,
            buttons=["fullscreen"],
        )
        gr.Markdown(captions.get(kind, ""), elem_classes="hint")

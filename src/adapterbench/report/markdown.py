"""The comparison as a Markdown file for people."""

from pathlib import Path

from adapterbench.core.files import publish
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.methods import PROTOCOLS
from adapterbench.report.sheets import costs, headline
from adapterbench.report.table import FILES, Comparison
from adapterbench.report.words import findings

HOW_TO_READ = (
    "CLIP-T: cosine of generated image and caption; CLIP-I: cosine of generated image and "
    "reference image; means over items and images, with intervals in brackets. CLIPScore is "
    "2.5 x max(CLIP-T, 0). CLIP-I rewards copying: read it beside CLIP-T and the pictures."
)

ROWS = (
    "No prompt: empty text and no image. Text only: the caption and no image. Shuffled "
    "reference: the adapters' pictures scored against another item, mean over the adapters. "
    "Reference image: the real image itself, the ceiling. They belong to no protocol."
)


def render(comparison: Comparison, measured: MeasuredOn) -> str:
    """The whole file's text."""
    said = [f"**{f.text}**" if f.alarm else f.text for f in findings(comparison)]
    facts = [f"{name}: {value}" for name, value in measured.facts().items()]
    blocks = [
        f"# Comparison: {PROTOCOLS[comparison.protocol]}",
        headline(comparison).markdown(),
        HOW_TO_READ,
        ROWS,
        "## What it shows",
        bullets(said),
        "## Cost of training",
        costs(comparison).markdown(),
        "## Measured on",
        bullets(facts),
    ]
    return "\n\n".join(blocks) + "\n"


def bullets(lines: list[str]) -> str:
    """A list, an item a line."""
    return "\n".join(f"- {line}" for line in lines)


def write(comparison: Comparison, measured: MeasuredOn, folder: Path) -> None:
    """Write the file beside the protocol's csv, under the same name."""
    with publish((folder / FILES[comparison.protocol]).with_suffix(".md")) as beside:
        beside.write_text(render(comparison, measured), encoding="utf-8")

"""The comparison as a Markdown file."""

from pathlib import Path

from adapterbench.core.files import publish
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.report.findings import findings
from adapterbench.report.measured import MeasuredOn
from adapterbench.report.methods import DAGGER
from adapterbench.report.sheets import costs, headline
from adapterbench.report.table import FILES, Comparison
from adapterbench.report.verdict import verdict

HOW_TO_READ = (
    "CLIP-T: cosine of generated image and caption; CLIP-I: cosine of generated image and "
    "reference image; means over items and images, with intervals in brackets. CLIPScore is "
    "2.5 x max(CLIP-T, 0). Neutral-I: the same cosine by an ImageNet network that no "
    "adapter was trained with; R@1: share of the images that are nearer to their own reference "
    "than to any other item's, by the same network; diversity: mean distance between the images "
    "of an item. CLIP-I and Neutral-I reward copying: read them together with CLIP-T and the "
    "images, and claim nothing that only one of the two shows."
)

ROWS = (
    "No prompt: empty text and no image. Text only: the caption and no image. Shuffled "
    "reference: the adapters' images scored against another item, mean over the adapters. The "
    "other rows are real images: another item's; the reference shrunk to 16 pixels and back; the "
    "reference through the VAE, which no adapter over this base can exceed; the reference itself. "
    "None of these rows belongs to a protocol."
)


def render(comparison: Comparison, measured: MeasuredOn) -> str:
    """Text of the file."""
    sentences = [f"**{f.text}**" if f.alarm else f.text for f in findings(comparison)]
    facts = [f"{name}: {value}" for name, value in measured.facts().items()]
    blocks = [
        f"# Comparison: {PROTOCOLS[comparison.protocol].title}",
        " ".join(verdict(comparison)),
        headline(comparison).markdown(),
        *dagger_note(comparison),
        HOW_TO_READ,
        ROWS,
        *training_free_note(comparison),
        "## What it shows",
        bullets(sentences),
        "## Cost of training",
        costs(comparison).markdown(),
        "## Measured on",
        bullets(facts),
    ]
    return "\n\n".join(blocks) + "\n"


def training_free_note(comparison: Comparison) -> list[str]:
    """Explanation of the rows of training-free methods, if there are any."""
    rows = {
        "img2img": "sampling starts from the noised image prompt",
        "reference_only": "self-attention also attends to the noised image prompt",
    }
    texts = [f"{comparison.label(name)}: {rows[name]}." for name in comparison.training_free]
    return [f"Without any training: {' '.join(texts)}"] if texts else []


def dagger_note(comparison: Comparison) -> list[str]:
    """Explanation of the dagger, if a row has one."""
    rows = [f"{name}: {settings}" for name, settings in comparison.other_training.items()]
    return (
        [f"{DAGGER} trained with other settings than the other variants. {'; '.join(rows)}."]
        if rows
        else []
    )


def bullets(lines: list[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def write(comparison: Comparison, measured: MeasuredOn, folder: Path) -> None:
    """Write the file next to the protocol's csv, with the same stem."""
    with publish((folder / FILES[comparison.protocol]).with_suffix(".md")) as beside:
        beside.write_text(render(comparison, measured), encoding="utf-8")

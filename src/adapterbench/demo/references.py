"""The images that the page offers to pick from, and examples of them with a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from more_itertools import unique_everseen

from adapterbench.core.config import PromptParams
from adapterbench.formats.shards import read_split
from adapterbench.report.references import Reference

COUNT = 32


@dataclass(frozen=True, slots=True)
class Example:
    """An image with a text prompt."""

    reference: Reference
    text: str


def references(shards: Path) -> list[Reference]:
    """The first `COUNT` validation images of different concepts; no adapter was trained on them.

    Raises:
        UserError: a shard is missing or damaged.
    """
    samples = read_split(shards, "validation", on_bad=[])
    different = unique_everseen(samples, key=lambda s: s.meta.get("concept", s.key))
    return [Reference(s.image, s.captions[0]) for s in islice(different, COUNT)]


def examples(references: Sequence[Reference], prompts: Sequence[PromptParams]) -> list[Example]:
    """Those prompts of the figures whose image is among `references`, by its caption."""
    found = ((first_with(references, prompt.image), prompt.text) for prompt in prompts)
    return [Example(reference, text) for reference, text in found if reference]


def first_with(references: Sequence[Reference], word: str) -> Reference | None:
    """The first image whose caption has a word."""
    return next((reference for reference in references if word in reference.caption), None)

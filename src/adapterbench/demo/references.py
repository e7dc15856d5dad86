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
"""Images that are offered."""
SEARCHED = 2000
"""Most images that examples are sought in; reading them takes seconds."""


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


def examples(shards: Path, prompts: Sequence[PromptParams]) -> list[Example]:
    """The prompts of the figures, each with the first validation image whose caption has its word.

    A prompt without one among the first `SEARCHED` images is left out.

    Raises:
        UserError: a shard is missing or damaged.
    """
    words = {prompt.image for prompt in prompts}
    found: dict[str, Reference] = {}
    for sample in islice(read_split(shards, "validation", on_bad=[]), SEARCHED):
        for word in words - found.keys():
            if word in sample.captions[0]:
                found[word] = Reference(sample.image, sample.captions[0])
        if len(found) == len(words):
            break
    return [Example(found[p.image], p.text) for p in prompts if p.image in found]

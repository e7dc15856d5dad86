"""The images that the page offers to pick from."""

from itertools import islice
from pathlib import Path

from more_itertools import unique_everseen

from adapterbench.formats.shards import read_split
from adapterbench.report.references import Reference

COUNT = 32


def references(shards: Path) -> list[Reference]:
    """The first `COUNT` validation images of different concepts; no adapter was trained on them.

    Raises:
        UserError: a shard is missing or damaged.
    """
    samples = read_split(shards, "validation", on_bad=[])
    different = unique_everseen(samples, key=lambda s: s.meta.get("concept", s.key))
    return [Reference(s.image, s.captions[0]) for s in islice(different, COUNT)]

"""Prompt pairs (image and text) with a known target image, as a JSON list beside the tars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from adapterbench.core.documents import Document, read_document
from adapterbench.core.files import write_json


class Pair(Document):
    """An image prompt and a text prompt with a known target image."""

    prompt: str
    """Key of the image prompt."""
    text: str
    """The text prompt."""
    goal: str
    """Key of the target image."""


PROTOCOLS = {
    "restyle": "one maker's image, another's style in words",
    "concept": "one maker's image, the name of another thing",
}
"""Descriptions of the protocols by name."""


def list_path(folder: Path, protocol: str) -> Path:
    """Path of the list of pairs of a protocol."""
    return folder / f"{protocol}.json"


def tars_path(folder: Path, protocol: str) -> Path:
    """Folder of the images generated from the pairs of a protocol."""
    return folder / protocol


def tar_path(folder: Path, protocol: str, prompts: str) -> Path:
    """Tar of the images generated from the pairs of a protocol, with these prompts of each pair."""
    return tars_path(folder, protocol) / f"{prompts}.tar"


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pairs of a protocol."""
    write_json(path, [pair.model_dump() for pair in pairs])


def read_pairs(path: Path) -> list[Pair]:
    """Read the pairs of a protocol.

    Raises:
        UserError: the file is missing, empty or not such a list.
    """
    kind = Annotated[list[Pair], Field(min_length=1)]
    return read_document(kind, path, "a list of prompt pairs with a target image")

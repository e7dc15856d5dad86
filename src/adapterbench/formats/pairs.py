"""Image and text prompts that have a right answer, as a JSON list beside what is drawn of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from adapterbench.core.documents import Document, read_document
from adapterbench.core.files import write_json


class Pair(Document):
    """An image prompt and a text prompt that have a right answer."""

    prompt: str
    """Key of the image prompt."""
    text: str
    """The text prompt."""
    goal: str
    """Key of the right answer."""


PROTOCOLS = {
    "restyle": "one maker's image, another's style in words",
    "concept": "one maker's image, the name of another thing",
}
"""By name, for people."""


def list_path(folder: Path, protocol: str) -> Path:
    """Where the pairs of a protocol are listed, in the folder of all."""
    return folder / f"{protocol}.json"


def tars_path(folder: Path, protocol: str) -> Path:
    """Folder of what is drawn of a protocol's pairs."""
    return folder / protocol


def tar_path(folder: Path, protocol: str, prompts: str) -> Path:
    """Tar of what is drawn of a protocol's pairs, given those prompts."""
    return tars_path(folder, protocol) / f"{prompts}.tar"


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pairs of a protocol."""
    write_json(path, [pair.model_dump() for pair in pairs])


def read_pairs(path: Path) -> list[Pair]:
    """Read the pairs of a protocol.

    Raises:
        UserError: the file is missing or is no such list, or it is empty.
    """
    kind = Annotated[list[Pair], Field(min_length=1)]
    return read_document(kind, path, "a list of prompts with a right answer")

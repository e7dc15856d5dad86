"""Named scales of an adapter's layers, such as `style` and `layout`, from measurements.

The role of a layer depends on the base model and the adapter, so presets are measured for each
adapter and stored in its folder or beside it.
"""

from pathlib import Path

from pydantic import FiniteFloat

from adapterbench.adapters.core.storage import WEIGHTS
from adapterbench.core.documents import Document, Sha256, read_document
from adapterbench.core.errors import UserError
from adapterbench.core.files import sha256, write_json

PRESETS = "presets.json"
"""In the folder of an adapter; beside the folder `NAME` it is `NAME.presets.json`."""


class Presets(Document):
    """Content of `presets.json`."""

    sha256: Sha256
    """Digest of the weights that were measured."""
    method: str
    """How the layers were measured, in a sentence."""
    presets: dict[str, dict[str, FiniteFloat]]
    """lambda by the path of the layer, by the preset's name; layers left out get 0. Empty if no
    layer was found to carry what a preset needs."""


def save_presets(
    path: Path, folder: Path, method: str, presets: dict[str, dict[str, float]]
) -> None:
    """Write measured presets of the adapter in `folder` to `path`, one of `places`."""
    digest = sha256(folder / WEIGHTS)
    document = Presets(sha256=digest, method=method, presets=presets)
    write_json(path, document.model_dump())


def places(folder: Path) -> tuple[Path, Path]:
    """Paths where the presets of the adapter in `folder` may be: in it, or beside it."""
    return folder / PRESETS, folder.with_name(f"{folder.name}.{PRESETS}")


def place(folder: Path) -> Path | None:
    """Path of the presets of the adapter in `folder`; None: it has none."""
    return next(filter(Path.exists, places(folder.absolute())), None)


def preset_names(folder: Path) -> list[str]:
    """Names of an adapter's presets, sorted.

    Raises:
        UserError: the file is damaged.
    """
    path = place(folder)
    return sorted(read(path).presets) if path else []


def read(path: Path) -> Presets:
    """Read a file of presets.

    Raises:
        UserError: it is damaged.
    """
    return read_document(Presets, path, "presets of an adapter", "measure its layers again")


def read_preset(folder: Path, name: str) -> dict[str, float]:
    """lambda by the path of the layer.

    Raises:
        UserError: the adapter has no presets or not this one, or they are of other weights.
    """
    path = place(folder)
    if path is None:
        raise UserError(
            f"scale = {name!r}: give a finite number, or a mapping from blocks or layers to such: "
            f"this adapter has no measured presets ({folder / PRESETS}); stage layers measures them"
        )
    document = read(path)
    if name not in document.presets:
        known = ", ".join(sorted(document.presets)) or "none"
        raise UserError(
            f"{path} has no preset {name!r} (there are {known}). How they were measured: "
            f"{document.method}"
        )
    if document.sha256 != sha256(folder / WEIGHTS):
        raise UserError(f"{path} was measured on other weights: measure the adapter's layers again")
    return document.presets[name]

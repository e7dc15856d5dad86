"""Generated images: tars of `<key>.<k>.png` (image k of an item), and their paths."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from adapterbench.core.errors import InputError, one_line
from adapterbench.formats.image import decode
from adapterbench.formats.tars import BadTarError, Tar, open_tar


@dataclass(frozen=True, slots=True)
class Protocol:
    """The conditions that a method gets, besides the image prompt of an adapter."""

    with_text: bool
    """Whether the caption is the text prompt."""
    title: str
    floor: str
    """Baseline with the same conditions but no image prompt."""


PROTOCOLS = {
    "image": Protocol(False, "image prompt alone", floor="no_prompt"),
    "image_text": Protocol(True, "image prompt and caption", floor="text_only"),
}
"""By name; the first is the headline protocol."""
HEADLINE = next(iter(PROTOCOLS))


def samples_tar(method: Path, protocol: str) -> Path:
    """Path of the images that stage `sample` generates with a method under a protocol."""
    return method / f"{protocol}.tar"


@dataclass(frozen=True, slots=True)
class Illustrations:
    """Paths of what stage `illustrate` generates with a method, and of its scores."""

    folder: Path
    """Folder of the method."""

    @property
    def prompts(self) -> Path:
        """Tar of images from image prompts with other texts; k is the number of the pair."""
        return self.folder / "prompts.tar"

    @property
    def bases(self) -> list[str]:
        """Names of the further base models that were used, sorted."""
        return sorted(path.stem for path in self.base("").parent.glob("*.tar"))

    def base(self, name: str) -> Path:
        """Tar of images on another base model."""
        return self.folder / "bases" / f"{name}.tar"

    @property
    def sweep(self) -> Path:
        """Folder with one tar per scale, named after it; the name serves as protocol in scoring."""
        return self.folder / "sweep"

    def scale(self, value: float) -> Path:
        """Tar of images at a scale."""
        return self.sweep / f"{value:g}.tar"

    @property
    def sweep_scores(self) -> Path:
        """Scores of the sweep; `clip_i_shuffled` is the similarity to the image prompt."""
        return self.folder / "sweep.parquet"

    @property
    def pairs(self) -> Path:
        """Folder of the prompt pairs with a target image; see `formats.pairs`."""
        return self.folder / "pairs"

    @property
    def pairs_scores(self) -> Path:
        """Scores of the pairs, one row per image: `protocol, prompts, key, goal, copy, r_at_1`."""
        return self.folder / "pairs.parquet"


NAME = re.compile(r"(?P<key>.+)\.(?P<k>\d{1,9})\.png", re.ASCII)
"""Name of an image in its tar."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An image in a tar, not decoded."""

    key: str
    k: int
    png: bytes


def write_images(path: Path, images: Iterable[Generated]) -> None:
    """Write a tar; the same images give the same bytes."""
    from webdataset import TarWriter  # takes a second to import; readers do not need it

    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), mtime=0, encoder=False) as tar:
        for image in images:
            tar.write({"__key__": image.key, f"{image.k}.png": image.png})


def find_tars(folder: Path) -> list[Path]:
    """The tars of a method, sorted.

    Raises:
        UserError: there are none.
    """
    if not (paths := sorted(folder.glob("*.tar"))):
        raise InputError(f"{folder} holds no generated images", folder)
    return paths


def read_names(path: Path) -> list[tuple[str, int]]:
    """Key and k of each image of a tar, in order.

    Raises:
        UserError: the tar is missing or damaged, or holds something else.
    """
    with input_errors(path), open_tar(path) as tar:
        return [parse_name(name) for name in tar.members]


def read_images(path: Path) -> Iterator[Generated]:
    """The images of a tar, in order.

    Raises:
        UserError: see `read_names`.
    """
    with input_errors(path), open_tar(path) as tar:
        for name in tar.members:
            yield Generated(*parse_name(name), tar.read(name))


def decode_images(path: Path, keys: Sequence[str], k: int = 0) -> list[Image.Image]:
    """Image `k` of each key, decoded.

    Raises:
        UserError: the tar is missing or damaged, or lacks an image.
    """
    names = [f"{key}.{k}.png" for key in keys]
    with input_errors(path), open_tar(path) as tar:
        if missing := [name for name in names if name not in tar.members]:
            raise InputError(f"{path} has no image {missing[0]}", path)
        return [decode_image(tar, name) for name in names]


def decode_image(tar: Tar, name: str) -> Image.Image:
    """Decode a member.

    Raises:
        BadTarError: it cannot be decoded.
    """
    try:
        return decode(tar.read(name))
    except ValueError as error:
        raise BadTarError(f"{name}: {error}") from error


def parse_name(name: str) -> tuple[str, int]:
    """Key and k of a member.

    Raises:
        BadTarError: the name is not that of a generated image.
    """
    if not (match := NAME.fullmatch(name)):
        raise BadTarError(f"{name!r} is not the image of an item")
    return match["key"], int(match["k"])


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Raise an `InputError` for `path` if reading it fails in the block."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", path) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)})", path) from error

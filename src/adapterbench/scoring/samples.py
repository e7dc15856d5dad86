"""Generated images as stage `sample` leaves them: tars of `<key>.<k>.png`."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.formats.image import decode
from adapterbench.formats.tars import open_tar
from adapterbench.scoring.evaluator import Evaluator


def tars(samples: Path) -> list[Path]:
    """The tars of a method, in order.

    Raises:
        UserError: there are none.
    """
    if not (paths := sorted(samples.glob("*.tar"))):
        raise UserError(f"{samples} holds no samples: run `dvc repro sample`")
    return paths


def read_images(path: Path) -> Iterator[dict[str, Any]]:
    """The images of a tar as `{key, k, png}`, in order, not decoded.

    Raises:
        UserError: the tar is damaged.
    """
    with intact(path), open_tar(path) as tar:
        for name in tar.members:
            key, k, _ = name.rsplit(".", 2)
            yield {"key": key, "k": int(k), "png": tar.read(name)}


def check_counts(path: Path, rows: list[dict[str, Any]]) -> None:
    """Refuse a tar whose items have different numbers of images: zeros over its end look like one.

    Raises:
        UserError: an item has fewer images than another.
    """
    counts = Counter(row["key"] for row in rows).most_common()
    with intact(path):
        if counts and counts[-1][1] < counts[0][1]:
            raise ValueError("{} has {} images, others {}".format(*counts[-1], counts[0][1]))


def embed(path: Path, rows: list[dict[str, Any]], evaluator: Evaluator) -> Tensor:
    """Unit vectors `(M, D)` of images of the tar at `path`, decoded a batch at a time.

    Raises:
        UserError: an image is damaged.
    """

    def network(batch: list[dict[str, Any]]) -> Tensor:
        with intact(path):
            images = [decode(row["png"]) for row in batch]
        return evaluator.image_embeds(images)

    return evaluator.embed(network, rows)


@contextmanager
def intact(path: Path) -> Iterator[None]:
    """Say how to mend a tar whose reading fails in the block."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run `dvc repro sample@{path.parent.name}`"
        ) from error

"""Embed the generated images of a tar, batch by batch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from adapterbench.formats.generated import Generated, input_errors
from adapterbench.formats.image import decode
from adapterbench.scoring.evaluator import Evaluator


def check_counts(path: Path, images: Sequence[Generated]) -> None:
    """Check that all items of a tar have as many images: a zeroed tail reads as the end of the tar.

    Raises:
        UserError: an item has fewer images than another.
    """
    counts = Counter(image.key for image in images).most_common()
    with input_errors(path):
        if counts and counts[-1][1] < counts[0][1]:
            raise ValueError("{} has {} images, others {}".format(*counts[-1], counts[0][1]))


def embed(
    path: Path, images: Sequence[Generated], evaluator: Evaluator
) -> Float[Tensor, "images dim"]:
    """Unit vectors `(M, D)` of images of the tar at `path`; only one batch is decoded at a time.

    Raises:
        UserError: an image is damaged.
    """

    def network(batch: list[Generated]) -> Float[Tensor, "batch dim"]:
        with input_errors(path):
            decoded = [decode(image.png) for image in batch]
        return evaluator.image_embeds(decoded)

    return evaluator.embed(network, images)

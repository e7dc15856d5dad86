"""Loads the images of shards with worker processes, ahead of the encoders."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapterbench.core.config import Fit
from adapterbench.core.errors import UserError
from adapterbench.formats.image import to_array
from adapterbench.formats.shards import OpenShard, Sample, Shard, open_shard
from adapterbench.frozen.prompts import FITS
from adapterbench.runs.workers import parallel_map


@dataclass(frozen=True)
class Images:
    """A batch of one shard, ready for the encoders."""

    shard: int
    """Index of the shard among those that are read."""
    pixels: np.ndarray
    """uint8 `(B, 3, H, W)`."""
    clip_pixels: np.ndarray
    """Views as the CLIP's own preprocessing gives them, float `(V, 3, h, w)`."""
    views: list[int]
    """Number of views of each image, V in all."""
    rows: list[dict[str, Any]]
    """`key`, `concept` and `captions` of each."""
    skipped: list[dict[str, str]]
    """`key` and `cause` of images that cannot be used."""


Part = tuple[int, range]
"""Index of a shard, and indices of the samples of a batch in it."""


class Reader:
    """Reads batches of shards; the last shard read stays open."""

    def __init__(self, shards: Sequence[Shard], preprocess: Callable[[Any], Any], fit: Fit) -> None:
        """Store the arguments; nothing is opened yet.

        Args:
            shards: by index.
            preprocess: PIL image -> the tensor that the CLIP takes, `(3, h, w)`.
            fit: see `EncodeParams`.
        """
        self.shards, self.preprocess, self.fit = shards, preprocess, fit
        self.stack = ExitStack()
        self.number: int | None = None
        self.open: OpenShard

    def __call__(self, part: Part) -> Images:
        """Read a batch; images that cannot be used are left out.

        Raises:
            UserError: the shard is damaged or differs from its manifest.
        """
        shard, numbers = part
        skipped: list[dict[str, str]] = []
        # in training a crop is of the square that latents are made from
        read = self.opened(shard).read(numbers, skipped, keep_whole=self.fit != "crop")
        pairs = [(sample, views) for sample in read if (views := self.views(sample, skipped))]
        return Images(
            shard=shard,
            pixels=stacked([to_array(sample.image) for sample, _ in pairs]),
            clip_pixels=stacked([view for _, views in pairs for view in views]),
            views=[len(views) for _, views in pairs],
            rows=[
                {"key": s.key, "concept": s.meta.get("concept", s.key), "captions": s.captions}
                for s, _ in pairs
            ],
            skipped=skipped,
        )

    def views(self, sample: Sample, skipped: list[dict[str, str]]) -> list[np.ndarray]:
        """The views of an image, `(3, h, w)` each; one too elongated has none and is skipped."""
        try:
            views = FITS[self.fit](sample.whole or sample.image)
        except UserError as error:
            skipped.append({"key": sample.key, "cause": str(error)})
            return []
        return [self.preprocess(view).numpy() for view in views]

    def opened(self, number: int) -> OpenShard:
        """Open the shard with this index, and close the one before."""
        if self.number != number:
            self.stack.close()
            self.open = self.stack.enter_context(open_shard(self.shards[number]))
            self.number = number
        return self.open


def stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape; the list may be empty."""
    return np.stack(arrays) if arrays else np.empty(0)


def read_batches(
    shards: Sequence[Shard], batch_size: int, preprocess: Callable[[Any], Any], fit: Fit
) -> Iterator[Images]:
    """Yield the batches of all shards in order, at least one per shard; see `Reader`.

    Raises:
        UserError: see `Reader` and `runs.workers.parallel_map`.
    """
    parts = (
        (number, range(first, min(first + batch_size, shard.samples)))
        for number, shard in enumerate(shards)
        for first in range(0, max(1, shard.samples), batch_size)
    )
    # numpy arrays are sent through a pipe; tensors would need shared memory, which is scarce in
    # containers
    return parallel_map(Reader(shards, preprocess, fit), parts)

"""The images of shards, decoded, cut and scaled by worker processes ahead of the encoders."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adapterbench.core.errors import UserError
from adapterbench.formats.image import to_array
from adapterbench.formats.shards import OpenShard, Shard, open_shard
from adapterbench.runs.workers import cores, killed

WORTH = 8
"""Batches that are worth a worker process: it takes some tenths of a second to start."""


@dataclass(frozen=True)
class Images:
    """A batch of a shard, ready for the encoders."""

    shard: int
    """Number of the shard among those that are read."""
    pixels: Tensor
    """uint8 `(B, 3, H, W)`."""
    clip_pixels: Tensor
    """As the CLIP's own preprocessing gives them, `(B, 3, h, w)`."""
    rows: list[dict[str, Any]]
    """`key`, `concept` and `captions` of each."""
    skipped: list[dict[str, str]]
    """`key` and `cause` of those that cannot be used."""


class Batches(Dataset["Images | UserError"]):
    """The batches of some shards, by number."""

    def __init__(
        self, shards: Sequence[Shard], batch_size: int, preprocess: Callable[[Any], Tensor]
    ) -> None:
        """Cut the shards into batches; nothing is read yet.

        Args:
            shards: in order; the last batch of each may be smaller.
            batch_size: images of a batch.
            preprocess: PIL image -> what the CLIP takes, `(3, h, w)`.
        """
        self.shards, self.preprocess = shards, preprocess
        self.parts = [
            (number, range(start, min(start + batch_size, shard.samples)))
            for number, shard in enumerate(shards)
            for start in range(0, max(1, shard.samples), batch_size)
        ]
        self.stack = ExitStack()
        self.open: tuple[int, OpenShard] | None = None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> "Images | UserError":
        """Read a batch; a `UserError` is its value, since a worker cannot raise one as it is."""
        shard, numbers = self.parts[number]
        skipped: list[dict[str, str]] = []
        try:
            samples = list(self.opened(shard).read(numbers, skipped))
        except UserError as error:
            return error
        return Images(
            shard=shard,
            pixels=stacked([torch.from_numpy(to_array(sample.image)) for sample in samples]),
            clip_pixels=stacked([self.preprocess(sample.image) for sample in samples]),
            rows=[
                {"key": s.key, "concept": s.meta.get("concept", s.key), "captions": s.captions}
                for s in samples
            ],
            skipped=skipped,
        )

    def opened(self, number: int) -> OpenShard:
        """A shard, which stays open until another is asked for."""
        if self.open is None or self.open[0] != number:
            self.stack.close()
            self.open = number, self.stack.enter_context(open_shard(self.shards[number]))
        return self.open[1]


def stacked(tensors: list[Tensor]) -> Tensor:
    """Tensors of one shape as one; none of them is allowed."""
    return torch.stack(tensors) if tensors else torch.empty(0)


def read_batches(
    shards: Sequence[Shard], batch_size: int, preprocess: Callable[[Any], Tensor]
) -> Iterator[Images]:
    """Yield the batches of all shards in order; see `Batches`.

    Raises:
        UserError: a shard is damaged or not as its manifest says, or a worker process was killed.
    """
    batches = Batches(shards, batch_size, preprocess)
    workers = min(cores(), len(batches) // WORTH)
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    try:
        for images in loader:
            if isinstance(images, UserError):
                raise images
            yield images
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise killed() from error
        raise

"""The batches of a training run, loaded ahead of the steps that use them.

A batch is a pure function of its step number, so it does not depend on the process that loads it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from adapterbench.core.config import TrainParams
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.runs.program import LOADER_WORKER
from adapterbench.training.loop import batch_indices, epoch_order, step_generator
from adapterbench.training.loss import NoiseSchedule, draw_noise

MAX_WORKERS = 4
"""Most loader processes per GPU; more do not help."""


@dataclass(frozen=True)
class LocalBatch:
    """The N samples of one process in the batch of a step, and what was drawn for them."""

    latents: Float[Tensor, "samples channels height width"]
    """`(N, C, h, w)`"""
    image_embeds: Float[Tensor, " samples *features"]
    """Image prompts: embeddings `(N, c)` or patches `(N, S, p)`."""
    texts: Float[Tensor, "samples text dim"] | Int[Tensor, "samples text"]
    """One phrasing per caption: embeddings `(N, L, D)` or token ids `(N, L)`."""
    noise: Float[Tensor, "samples channels height width"]
    """`(N, C, h, w)`"""
    t: Int64[Tensor, " samples"]
    """Timesteps `(N,)`."""
    drop: Float[Tensor, " samples"]
    """Uniform numbers in [0, 1) that decide which conditions are dropped, `(N,)`."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply `change` to every tensor."""
        return type(self)(*(change(tensor) for tensor in vars(self).values()))

    def pin_memory(self) -> Self:
        """Copy to pinned memory; the loader calls it."""
        return self.map(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """Copy to `device`; pinned tensors are copied asynchronously."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


class LocalBatches(Dataset[LocalBatch | None]):
    """The part of one process in the batch of each step, by step number."""

    def __init__(
        self, data: EncodedSplit, schedule: NoiseSchedule, params: TrainParams, share: slice
    ) -> None:
        self.data, self.schedule, self.params, self.share = data, schedule, params, share
        self.shape = data.row(0)[0].shape
        self.subset = subset(len(data), params.samples)

    def __getitem__(self, step: int) -> LocalBatch | None:
        """`draw`, or None on a `UserError`: errors lose their type on the way from a worker."""
        try:
            return self.draw(step)
        except UserError:
            return None

    def draw(self, step: int) -> LocalBatch:
        """Load a step's samples; random numbers are drawn for the whole batch in every process.

        Raises:
            UserError: a file is damaged.
        """
        size, seed = self.params.batch_size, self.params.seed
        generator = step_generator(seed, step)
        index = self.subset[batch_indices(len(self.subset), size, seed, step)]
        phrasing = torch.rand(size, generator=generator)
        drop = torch.rand(size, generator=generator)
        noise, t = draw_noise(self.schedule, (size, *self.shape), generator)
        local = self.share
        batch = self.data.gather(index[local], phrasing[local])
        drawn = (part[local].clone() for part in (noise, t, drop))  # frees the rest of the batch
        return LocalBatch(batch.latents, batch.image_embeds, batch.texts, *drawn)


def subset(total: int, samples: int | None) -> Int64[Tensor, " samples"]:
    """The first `samples` indices in a fixed random order of `total`; all in order if it is None.

    Raises:
        UserError: there are fewer.
    """
    if samples is None:
        return torch.arange(total)
    if samples > total:
        raise UserError(
            f"train.samples = {samples:,}, but the training split has {total:,}: lower it, or set "
            "it to null for all"
        )
    return epoch_order(total, 0, 0)[:samples]


class Batches:
    """The local batches of consecutive steps, on the device of this process."""

    def __init__(self, dataset: LocalBatches, steps: int, device: torch.device) -> None:
        self.dataset, self.steps, self.device = dataset, steps, device
        self.step = -1

    def __call__(self, step: int) -> LocalBatch:
        """The local batch of a step, which is that of the previous call or the next one.

        Raises:
            UserError: see `LocalBatches.draw`.
        """
        if self.step < 0:
            self.ahead = self.load_from(step)
        if step != self.step:
            self.batch, self.step = next(self.ahead), step
        return self.batch

    def load_from(self, first: int) -> Iterator[LocalBatch]:
        """The local batches from a step on; on a GPU, worker processes load ahead."""
        steps = range(first, self.steps)
        loader = DataLoader(
            self.dataset,
            batch_size=None,
            sampler=steps,
            num_workers=workers(self.device),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        ahead = iter(loader)
        try:
            for step, batch in zip(steps, ahead, strict=True):
                yield (batch or self.dataset.draw(step)).to(self.device)
        except (ConnectionError, EOFError) as error:  # a worker dies while it sends a batch
            if isinstance(ahead, _MultiProcessingDataLoaderIter):
                # its socket closes before its SIGCHLD comes, on which torch would raise once more,
                # wherever this process then is
                ahead._shutdown_workers()
            raise RuntimeError(f"a {LOADER_WORKER} has died") from error


def workers(device: torch.device) -> int:
    """Number of loader processes for a device; none on a CPU, which they would slow down."""
    if device.type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MAX_WORKERS, max(1, usable // processes - 1))

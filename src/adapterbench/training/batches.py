"""The batches of a training, gathered ahead of the steps that use them.

What a step gets is a pure function of its number, so it is the same whoever gathers it, and when.
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

from adapterbench.core.config import TrainParams
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.runs.program import LOADER_WORKER
from adapterbench.training.loop import batch_indices, step_generator
from adapterbench.training.loss import NoiseSchedule, draw_noise

MOST_WORKERS = 4
"""Processes that gather for one GPU: more would wait, too."""


@dataclass(frozen=True)
class Share:
    """What one process needs of a step: N samples of its batch and what was drawn for them."""

    latents: Float[Tensor, "samples channels height width"]
    """`(N, C, h, w)`"""
    image_embeds: Float[Tensor, "samples embed"]
    """`(N, c)`"""
    texts: Float[Tensor, "samples text dim"] | Int[Tensor, "samples text"]
    """A phrasing of each caption, embedded `(N, L, D)`, or its token ids `(N, L)`."""
    noise: Float[Tensor, "samples channels height width"]
    """`(N, C, h, w)`"""
    t: Int64[Tensor, " samples"]
    """Timesteps `(N,)`."""
    drop: Float[Tensor, " samples"]
    """What is dropped of each sample, by number in [0, 1) `(N,)`."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        return type(self)(*(change(tensor) for tensor in vars(self).values()))

    def pin_memory(self) -> Self:
        """In pinned memory; the loader calls it."""
        return self.each(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """On `device`; what is pinned goes there while the host works on."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))


class Shares(Dataset[Share | None]):
    """The share of a process in the batch of each step, by the step's number."""

    def __init__(
        self, data: EncodedSplit, schedule: NoiseSchedule, params: TrainParams, share: slice
    ) -> None:
        self.data, self.schedule, self.params, self.share = data, schedule, params, share
        self.shape = data.row(0)[0].shape

    def __getitem__(self, step: int) -> Share | None:
        """`draw`; None where that fails, for an error loses its kind on the way from a worker."""
        try:
            return self.draw(step)
        except UserError:
            return None

    def draw(self, step: int) -> Share:
        """What a step gets: all is drawn for the whole batch, so it depends on no other process.

        Raises:
            UserError: a file is damaged.
        """
        size, seed = self.params.batch_size, self.params.seed
        generator = step_generator(seed, step)
        index = batch_indices(len(self.data), size, seed, step)
        phrasing = torch.rand(size, generator=generator)
        drop = torch.rand(size, generator=generator)
        noise, t = draw_noise(self.schedule, (size, *self.shape), generator)
        own = self.share
        batch = self.data.gather(index[own], phrasing[own])
        drawn = (part[own].clone() for part in (noise, t, drop))  # without the rest of the batch
        return Share(batch.latents, batch.image_embeds, batch.texts, *drawn)


class Batches:
    """The shares of consecutive steps on the device of a process."""

    def __init__(self, shares: Shares, steps: int, device: torch.device) -> None:
        self.shares, self.steps, self.device = shares, steps, device
        self.step = -1

    def __call__(self, step: int) -> Share:
        """The share of a step: the same as in the call before, or the next.

        Raises:
            UserError: see `Shares.draw`.
        """
        if self.step < 0:
            self.ahead = self.gathered(step)
        if step != self.step:
            self.share, self.step = next(self.ahead), step
        return self.share

    def gathered(self, first: int) -> Iterator[Share]:
        """The shares from a step on, gathered ahead by worker processes where that pays."""
        steps = range(first, self.steps)
        loader = DataLoader(
            self.shares,
            batch_size=None,
            sampler=steps,
            num_workers=workers(self.device),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # it would draw from the global one
        )
        try:
            for step, share in zip(steps, loader, strict=True):
                yield (share or self.shares.draw(step)).to(self.device)
        except (ConnectionError, EOFError) as error:  # it died as it handed over a batch
            raise RuntimeError(f"a {LOADER_WORKER} has died") from error


def workers(device: torch.device) -> int:
    """Processes that gather batches for a device: beside a CPU they would only slow it down."""
    if device.type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(1, usable // processes - 1))

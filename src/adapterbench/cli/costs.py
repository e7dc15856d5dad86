"""Costs of a comparison, computed from counts (no model, no file)."""

from collections.abc import Sequence
from dataclasses import dataclass

from adapterbench.cli.flops import Passes
from adapterbench.core.config import SampleParams, TrainParams
from adapterbench.formats.generated import PROTOCOLS
from adapterbench.sampling.sampler import TrainingFree

ADAMW_BYTES = 4 * 4
"""Bytes per trained weight: weight, gradient and AdamW's two moments, all fp32."""


@dataclass(frozen=True)
class Device:
    """Compute throughput of a device."""

    tflops: float
    """Peak, TFLOP/s, at the precision of the run."""
    utilisation: float
    """Share of the peak that a run reaches."""

    def hours(self, flops: int) -> float:
        """Hours for a number of operations."""
        return flops / (self.tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True)
class Training:
    """Costs of the training of one variant."""

    trainable_params: int
    optimizer_bytes: int
    """Memory of the trained weights, their gradients and moments."""
    steps: int
    samples_seen: int
    flops_per_step: int
    flops: int
    """Of all steps."""


def training(count: int, passes: Passes, text: int, params: TrainParams) -> Training:
    """Costs of the training of one variant.

    Args:
        count: number of trained weights.
        passes: operations of the UNet per sample.
        text: operations of the text encoder per sample; 0 if embeddings are stored.
        params: training parameters.
    """
    forwards = 2 if params.gradient_checkpointing else 1  # the backward pass runs it again
    flops = params.batch_size * (forwards * passes.forward + passes.backward + text)
    return Training(
        trainable_params=count,
        optimizer_bytes=ADAMW_BYTES * count,
        steps=params.steps,
        samples_seen=params.steps * params.batch_size,
        flops_per_step=flops,
        flops=params.steps * flops,
    )


@dataclass(frozen=True)
class Sampling:
    """Costs of all sampled images of a comparison."""

    images: int
    flops: int


def sampling(
    adapted: list[int],
    bare: int,
    training_free: Sequence[TrainingFree],
    decoder: int,
    params: SampleParams,
) -> Sampling:
    """Costs of the images of every method under each protocol, and of each protocol's floor.

    Args:
        adapted: operations of one UNet prediction with each variant.
        bare: operations of one UNet prediction without an adapter.
        training_free: the training-free methods; what they add to attention is not counted.
        decoder: operations of the VAE decoder per image.
        params: sampling parameters.
    """
    images = params.items * params.images_per_item  # of a method under a protocol
    # DPM-Solver++ needs one prediction per step; guidance doubles it (with and without prompts)
    prompts = 2 if params.guidance_scale > 1 else 1
    steps = params.steps
    free = [method.predictions(method.params, steps, prompts) * bare for method in training_free]
    # the last: the floors
    methods = [*(steps * prompts * forward for forward in adapted), *free, steps * prompts * bare]
    count = len(methods) * len(PROTOCOLS)
    return Sampling(
        images=images * count,
        flops=images * (sum(methods) * len(PROTOCOLS) + decoder * count),
    )

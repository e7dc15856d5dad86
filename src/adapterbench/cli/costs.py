"""What a comparison will cost: arithmetic on counts, no model and no file."""

from dataclasses import dataclass

from adapterbench.cli.flops import Passes
from adapterbench.core.config import SampleParams, TrainParams
from adapterbench.formats.generated import PROTOCOLS

ADAMW_BYTES = 4 * 4
"""A trained weight, its gradient and AdamW's two moments, all fp32."""


@dataclass(frozen=True)
class Device:
    """A machine, by what it computes."""

    tflops: float
    """Peak, 10^12 floating point operations a second, at the precision of the run."""
    utilisation: float
    """Share of the peak that the run reaches."""

    def hours(self, flops: int) -> float:
        """Time for so many operations."""
        return flops / (self.tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True)
class Training:
    """What the training of one variant takes."""

    trainable_params: int
    optimizer_bytes: int
    """Memory of the trained weights, their gradients and moments."""
    steps: int
    samples_seen: int
    flops_per_step: int
    flops: int
    """Of all steps."""


def training(count: int, passes: Passes, text: int, params: TrainParams) -> Training:
    """The training of a variant with `count` weights, these passes a sample and `text` a caption.

    Args:
        count: trained weights.
        passes: of the UNet.
        text: operations of the text encoder in a step, a sample; 0 where embeddings are stored.
        params: of the training.
    """
    flops = params.batch_size * (passes.forward + passes.backward + text)
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
    """What all images of a comparison take."""

    images: int
    flops: int


def sampling(adapted: list[int], bare: int, decoder: int, params: SampleParams) -> Sampling:
    """The images of every variant under each protocol, and of each protocol's floor.

    Args:
        adapted: operations of one prediction with each variant.
        bare: of one prediction of the model without any.
        decoder: of the VAE, an image.
    """
    each = params.items * params.images_per_item  # images of a method under a protocol
    # DPM-Solver++ predicts once a step; guidance predicts with and without the prompts
    predictions = params.steps * (2 if params.guidance_scale > 1 else 1)
    forwards = [*(forward for forward in adapted for _ in PROTOCOLS), *(bare for _ in PROTOCOLS)]
    return Sampling(
        images=each * len(forwards),
        flops=each * (predictions * sum(forwards) + decoder * len(forwards)),
    )

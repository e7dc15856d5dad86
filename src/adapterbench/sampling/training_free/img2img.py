"""Image to image: sampling starts from the noised reference (SDEdit, Meng et al. 2021)."""

from typing import Annotated, Any

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from pydantic import Field
from torch import Tensor

from adapterbench.core.config import Section
from adapterbench.core.errors import UserError
from adapterbench.sampling.items import generator
from adapterbench.sampling.sampler import Generate, ImageId, Sampler


class Params(Section):
    """Fields of `training_free.img2img`."""

    strength: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps that are run: near 0 the reference itself, 1 noise alone."""


class FromLatents(StableDiffusionImg2ImgPipeline):
    """Image to image from scaled latents; diffusers' own takes those of four channels alone."""

    def prepare_latents(
        self,
        image: Tensor,
        timestep: Tensor,
        batch_size: int,  # noqa: ARG002
        num_images_per_prompt: int,  # noqa: ARG002
        dtype: torch.dtype,
        device: torch.device,
        generator: list[torch.Generator] | None = None,
    ) -> Tensor:
        """The latents `(B, C, h, w)` noised to the first timestep."""
        start = image.to(device, dtype)
        noise = randn_tensor(start.shape, generator, device, dtype)
        noisy: Tensor = self.scheduler.add_noise(start, noise, timestep)
        return noisy


def predictions(params: Params, steps: int, prompts: int) -> int:
    """Predictions of the UNet for an image; `prompts` is 2 with guidance, else 1."""
    return int(steps * params.strength) * prompts


def build(params: Params, sampler: Sampler) -> Generate:
    """Generate from the references' latents, which get the noise that other methods start from.

    Raises:
        UserError: no step is left to run.
    """
    steps = sampler.params.steps
    if int(steps * params.strength) < 1:
        raise UserError(
            f"training_free.img2img.strength = {params.strength} of sample.steps = {steps} is less "
            "than a step: raise one of them"
        )
    pipeline = FromLatents(**sampler.pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    # so that it does not take latents for pixels
    pipeline.image_processor = VaeImageProcessor(vae_latent_channels=sampler.shape[0])

    def generate(image_ids: list[ImageId], conditions: dict[str, Any]) -> Any:
        return pipeline(
            image=sampler.references(image_ids),
            strength=params.strength,
            generator=[generator(p.key, p.k, sampler.params.seed) for p in image_ids],
            **conditions,
        )

    return generate

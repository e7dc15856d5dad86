"""Reference only: self-attention also attends to the reference (Zhang, ControlNet 1.1, 2023).

In each step the UNet first reads the reference, noised to the same timestep, and keeps the features
`Z_ref` that enter each self-attention layer. Then each layer computes

    softmax([Q K^T, Q K_ref^T + log w] / sqrt(d)) [V, V_ref],  K_ref = Z_ref W_K,  V_ref = Z_ref W_V

with the weight w of the reference. The unconditional half of guidance does not see it (w = 0).
"""

import math
from typing import Annotated, Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from pydantic import Field
from torch import Tensor

from adapterbench.adapters.core.branch import BaseProcessor
from adapterbench.core.config import Section
from adapterbench.sampling.items import noise
from adapterbench.sampling.sampler import Generate, ImageId, Sampler


class Params(Section):
    """Fields of `training_free.reference_only`."""

    weight: Annotated[float, Field(ge=0)]
    """Weight w of the reference: 0 ignores it, 1 counts its positions as the image's own."""


class Reference:
    """The references of a batch, which a UNet's self-attention layers attend to.

    Hooks of the UNet, which stay in place; without `latents` they change nothing.
    """

    def __init__(self, unet: UNet2DConditionModel, schedule: Any, weight: float) -> None:
        """Install the hooks.

        Args:
            unet: of the pipeline.
            schedule: its scheduler, which adds noise.
            weight: w.
        """
        self.schedule, self.log_weight = schedule, math.log(weight) if weight else -math.inf
        self.latents: Tensor | None = None
        """Scaled latents of the references `(N, C, h, w)`; None: no references."""
        self.noise = torch.empty(0)
        """Noise of the references, in the shape of their latents."""
        self.is_reading = False
        """Whether the UNet is reading the references now."""
        unet.register_forward_pre_hook(self.read, with_kwargs=True)
        for module in unet.modules():
            if isinstance(module, Attention) and not module.is_cross_attention:
                module.set_processor(SharedAttention(self, module.processor))  # type: ignore[arg-type]

    def read(
        self, unet: UNet2DConditionModel, args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> None:
        """Pass the references through the UNet before its call for the images; a forward pre-hook.

        The conditional half of guidance, the last N of the batch, gives their texts.
        """
        if self.latents is None or self.is_reading:
            return
        count, t, text = len(self.latents), args[1], inputs["encoder_hidden_states"]
        noisy = self.schedule.add_noise(self.latents, self.noise, t.expand(count))
        self.is_reading = True
        unet(noisy, t, **inputs | {"encoder_hidden_states": text[-count:]})
        self.is_reading = False


class SharedAttention:
    """Processor of a self-attention layer; `base` is the one that it wraps."""

    def __init__(self, reference: Reference, base: BaseProcessor) -> None:
        self.reference, self.base = reference, base
        self.features = torch.empty(0)
        """`Z_ref (N, positions, C)`."""

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: Any, **more: Any) -> Tensor:
        """Attend to the features `(N or 2N, positions, C)`, and to those of the references."""
        if self.reference.latents is None:
            return self.base(attn, hidden_states, **more)
        if self.reference.is_reading:
            self.features = hidden_states
            return self.base(attn, hidden_states, **more)
        halves, positions = len(hidden_states) // len(self.features), hidden_states.shape[1]
        # additive masks of the scores: the unconditional half, if any, comes first
        mask = hidden_states.new_zeros(len(hidden_states), 1, 2 * positions)
        mask[:, :, positions:] = -math.inf
        mask[-len(self.features) :, :, positions:] = self.reference.log_weight
        both = torch.cat([hidden_states, self.features.repeat(halves, 1, 1)], dim=1)
        return self.base(attn, hidden_states, both, mask)


def predictions(_: Params, steps: int, prompts: int) -> int:
    """Predictions of the UNet for an image and its reference; `prompts` is 2 with guidance."""
    return steps * (prompts + 1)


def build(params: Params, sampler: Sampler) -> Generate:
    """Generate from noise, with the references in the self-attention layers."""
    reference = Reference(sampler.unet, sampler.pipeline.scheduler, params.weight)

    def generate(image_ids: list[ImageId], conditions: dict[str, Any]) -> Any:
        reference.latents = sampler.references(image_ids).to(sampler.device)
        drawn = [noise(p.key, p.k, sampler.params.seed, sampler.shape) for p in image_ids]
        reference.noise = torch.stack(drawn).to(sampler.device)
        return sampler.from_noise(image_ids, conditions)

    return generate

"""Parts of a pipeline used once, on the smallest input: what loads may still not work.

A configuration that was damaged or edited can have the shapes of the weights and yet name heads, a
schedule or a scale that cannot be computed with. Nothing here draws from torch's generator.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LONGEST = 2**14
"""Tokens of a text: transformers takes 10^30 where a tokenizer names no number."""

MORE_THAN_TEXT = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
)
"""Fields of a UNet that predicts of other things, too."""


@torch.no_grad()
def check_usable(part: str, loaded: Any) -> None:
    """Use a part of a pipeline once.

    Raises:
        Exception: of any kind; it cannot be used.
    """
    for values in TRIALS[part](loaded):
        if not torch.as_tensor(values).isfinite().all():
            raise ValueError("it gives values that are not finite")


def unet(model: Any) -> list[Tensor]:
    """A prediction; models that ask for more than text are left to those who give it."""
    config = model.config
    if any(config[name] is not None for name in MORE_THAN_TEXT):
        return []
    side = 2 ** len(config.block_out_channels)  # norms take no single pixel
    latents = torch.zeros(1, config.in_channels, side, side)
    return [model(latents, 0, torch.zeros(1, 1, config.cross_attention_dim)).sample]


def vae(model: Any) -> list[Any]:
    """An image encoded and decoded, and the scale of latents."""
    side = 2 ** len(model.config.block_out_channels)
    latents = model.encode(torch.zeros(1, model.config.in_channels, side, side)).latent_dist.mode()
    return [latents, model.decode(latents).sample, 1 / model.config.scaling_factor]


def text_encoder(model: Any) -> list[Tensor]:
    """An embedding."""
    return [model(torch.zeros(1, 1, dtype=torch.long)).last_hidden_state]


def tokenizer(model: Any) -> list[Tensor]:
    """A text."""
    length = model.model_max_length
    if not 0 < length <= LONGEST:
        raise ValueError(f"model_max_length is {length}")
    options = {"padding": "max_length", "truncation": True, "max_length": length}
    return [model(["a"], return_tensors="pt", **options).input_ids]


def scheduler(model: Any) -> list[Tensor]:
    """A step by each of the schedulers that are made of its configuration."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler  # seconds to import

    steps = []
    for made in (
        DDPMScheduler.from_config(model.config),
        DPMSolverMultistepScheduler.from_config(
            model.config, algorithm_type="dpmsolver++", solver_order=2
        ),
    ):
        made.set_timesteps(2)
        generator, sample = torch.Generator(), torch.zeros(1, 1, 8, 8)
        step = made.step(sample, made.timesteps[0], sample, generator=generator)
        steps += [step.prev_sample, made.alphas_cumprod]
    return steps


TRIALS: dict[str, Callable[[Any], list[Any]]] = {
    "unet": unet,
    "vae": vae,
    "text_encoder": text_encoder,
    "tokenizer": tokenizer,
    "scheduler": scheduler,
}
"""By part: what it gives."""

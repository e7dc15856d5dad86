"""Runs each part of a pipeline once, on the smallest input, to check that it works.

A damaged or edited configuration may fit the shapes of the weights and yet have a number of heads,
a schedule or a scale that fails at run time. Nothing here draws from torch's global generator.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapterbench.frozen.conditions import TEXT_TIME, blank_texts, unet_inputs

MAX_TOKENS = 2**14
"""Most tokens of a text; transformers assumes 10^30 where a tokenizer gives no limit."""

EXTRA_CONDITIONS = ("class_embed_type", "encoder_hid_dim_type", "num_class_embeds")
"""Fields of a UNet that needs conditions besides those of `frozen.conditions`."""


@torch.no_grad()
def check_usable(part: str, loaded: Any) -> None:
    """Run a part of a pipeline once.

    Raises:
        Exception: of any type; it is unusable.
    """
    for values in TRIALS[part](loaded):
        if not torch.as_tensor(values).isfinite().all():
            raise ValueError("its output is not finite")


def unet(model: Any) -> list[Tensor]:
    """A prediction; none for models that need conditions which are unknown here."""
    config = model.config
    known = config.addition_embed_type in (None, TEXT_TIME)
    if not known or any(config[name] is not None for name in EXTRA_CONDITIONS):
        return []
    side = 2 ** len(config.block_out_channels)  # normalisation needs more than one pixel
    latents = torch.zeros(1, config.in_channels, side, side)
    texts = blank_texts(config, 1, config.cross_attention_dim)
    return [model(latents, 0, **unet_inputs(texts, latents)).sample]


def vae(model: Any) -> list[Any]:
    """An image encoded and decoded, and the scale of latents."""
    side = 2 ** len(model.config.block_out_channels)
    latents = model.encode(torch.zeros(1, model.config.in_channels, side, side)).latent_dist.mode()
    return [latents, model.decode(latents).sample, 1 / model.config.scaling_factor]


def text_encoder(model: Any) -> list[Tensor]:
    """The embedding of one token."""
    return [model(torch.zeros(1, 1, dtype=torch.long)).last_hidden_state]


def projected_text_encoder(model: Any) -> list[Tensor]:
    """The embedding of one token, and the pooled one."""
    return [*text_encoder(model), model(torch.zeros(1, 1, dtype=torch.long)).text_embeds]


def tokenizer(model: Any) -> list[Tensor]:
    """The token ids of a text."""
    length = model.model_max_length
    if not 0 < length <= MAX_TOKENS:
        raise ValueError(f"model_max_length is {length}")
    options = {"padding": "max_length", "truncation": True, "max_length": length}
    return [model(["a"], return_tensors="pt", **options).input_ids]


def scheduler(model: Any) -> list[Tensor]:
    """One step of each scheduler that is built from its configuration."""
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
    "text_encoder_2": projected_text_encoder,
    "tokenizer": tokenizer,
    "tokenizer_2": tokenizer,
    "scheduler": scheduler,
}
"""Trial runs by part."""

"""What a UNet reads besides latents and timestep; only here do base models differ in it.

Stable Diffusion 1 and 2 read text embeddings. SDXL (Podell et al. 2023, section 2) also reads the
pooled embedding of the text and the size and crop of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

SIDE = 8
"""Image pixels per side of a latent pixel, in all of these base models."""
TIME_IDS = 6
"""Numbers by which SDXL is told size and crop of an image."""
TEXT_TIME = "text_time"
"""diffusers' value of `addition_embed_type` for SDXL's conditions."""


@dataclass(frozen=True)
class Texts:
    """N texts as the UNet of a base model reads them."""

    embeds: Tensor
    """`(N, L, D)`"""
    pooled: Tensor | None = None
    """`(N, P)`; None where the base model reads none."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply `change` to every tensor."""
        pooled = None if self.pooled is None else change(self.pooled)
        return type(self)(change(self.embeds), pooled)

    def __getitem__(self, index: Any) -> Self:
        """Some of the texts: a slice or a list of numbers."""
        return self.map(lambda tensor: tensor[index])

    def where(self, chosen: Tensor, other: Self) -> Self:
        """These texts where `chosen (N,)` is true, elsewhere `other`, one text or N."""
        embeds = torch.where(chosen[:, None, None], self.embeds, other.embeds)
        if self.pooled is None or other.pooled is None:
            return type(self)(embeds)
        return type(self)(embeds, torch.where(chosen[:, None], self.pooled, other.pooled))

    def arguments(self, prefix: str = "") -> dict[str, Tensor]:
        """Arguments of the base model's pipeline; the unconditional ones begin with `negative_`."""
        named = {"prompt_embeds": self.embeds, "pooled_prompt_embeds": self.pooled}
        return {f"{prefix}{name}": value for name, value in named.items() if value is not None}


def unet_inputs(
    texts: Texts, latents: Tensor, image_embeds: Tensor | None = None
) -> dict[str, Any]:
    """Arguments of the UNet for N samples.

    Args:
        texts: one per sample.
        latents: `(N, C, h, w)`; only their shape and device are read.
        image_embeds: of one adapter, `(N, n, ..)`; None: no adapter is attached.
    """
    added: dict[str, Any] = {}
    if texts.pooled is not None:
        added |= {"text_embeds": texts.pooled, "time_ids": time_ids(latents)}
    if image_embeds is not None:
        added["image_embeds"] = [image_embeds]
    inputs: dict[str, Any] = {"encoder_hidden_states": texts.embeds}
    return inputs | ({"added_cond_kwargs": added} if added else {})


def image_size(latents: tuple[int, ...] | torch.Size) -> tuple[int, int]:
    """Height and width of the image, pixels, by the shape of its latents `(.., h, w)`."""
    return SIDE * latents[-2], SIDE * latents[-1]


def time_ids(latents: Tensor) -> Tensor:
    """SDXL's `(N, 6)`: original size, upper left corner of the crop, target size, as (y, x).

    Every image counts as whole and at its own size, as diffusers' pipeline has it by default.
    """
    return size_ids(image_size(latents.shape), latents.device).expand(len(latents), TIME_IDS)


@lru_cache(maxsize=4)  # a copy to the device in each step would wait for it
def size_ids(size: tuple[int, int], device: torch.device) -> Tensor:
    """`time_ids` of one image `(1, 6)`."""
    with torch.inference_mode(False):  # usable in training, whoever asks first
        return torch.tensor([[*size, 0.0, 0.0, *size]], device=device)


def blank_texts(config: Any, length: int, width: int) -> Texts:
    """One text of zeros for a UNet of this configuration: `length` tokens of this width."""
    pooled = None
    if config.addition_embed_type == TEXT_TIME:
        times = TIME_IDS * config.addition_time_embed_dim
        pooled = torch.zeros(1, config.projection_class_embeddings_input_dim - times)
    return Texts(torch.zeros(1, length, width), pooled)

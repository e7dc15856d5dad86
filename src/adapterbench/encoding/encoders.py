"""The frozen encoders of images and captions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked
from PIL import Image
from torch import Tensor

from adapterbench.core.config import EncodeParams
from adapterbench.encoding.reading import Images
from adapterbench.formats.encoded import EMBEDS, PATCHES, ZERO_PATCHES
from adapterbench.frozen.load import Clip, clip_name, load_clip, load_part
from adapterbench.frozen.prompts import averaged, image_prompts, patch_features
from adapterbench.frozen.texts import TextEncoders, check_stored_as, load_text_encoders


@dataclass(frozen=True)
class Encoders:
    """The frozen networks and their batch size; results are on the CPU."""

    vae: Any
    text: TextEncoders
    clip: Clip
    batch_size: int
    patches: bool
    """Whether image prompts include patches."""

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        """Scaled posterior modes `(B, C, h, w)` of uint8 images `(B, 3, H, W)`."""
        scaled = pixels.to(self.vae.device).float() / 127.5 - 1
        latents: Tensor = self.vae.encode(scaled).latent_dist.mode()
        return latents.cpu() * self.vae.config.scaling_factor

    def image_prompts(self, images: Images) -> dict[str, Tensor]:
        """Embeddings `(B, c)` by their name in the shards, and patches `(B, S, p)` if asked for."""
        pixels = torch.from_numpy(images.clip_pixels)
        prompts = {EMBEDS: self.clip.pixel_embeds(pixels)}
        if self.patches:
            prompts[PATCHES] = patch_features(self.clip, pixels)
        return {name: averaged(prompt, images.views) for name, prompt in prompts.items()}

    def unconditional(self) -> dict[str, Tensor]:
        """The patches of a zero image `(S, p)` by their name, if asked for."""
        if not self.patches:
            return {}
        _, zero = image_prompts(self.clip, [Image.new("RGB", (1, 1))], patches=True)
        return {ZERO_PATCHES: zero[0]}

    def texts(self, captions: list[str]) -> Tensor:
        """Embeddings `(T, L, D)`, as the pipeline computes them."""
        chunks = []
        for part in chunked(captions, self.batch_size):
            chunks.append(self.text.embed(self.token_ids(part)).embeds.cpu())
        return torch.cat(chunks)

    def token_ids(self, captions: list[str]) -> Tensor:
        """Token ids `(T, L)` of all text encoders, to be embedded when needed."""
        return self.text.token_ids(captions)


def load_encoders(
    params: EncodeParams, backbone: Path, device: torch.device | str = "cpu"
) -> Encoders:
    """Load the frozen encoders.

    Raises:
        UserError: one cannot be loaded, or `encode.texts` does not fit the base model.
    """
    text = load_text_encoders(backbone)
    check_stored_as(params.texts, len(text.models))
    return Encoders(
        vae=load_part(backbone, "vae").to(device, memory_format=torch.channels_last),
        text=text.to(device),
        clip=load_clip(clip_name(params.image_encoder, backbone), params.pretrained).to(device),
        batch_size=params.batch_size,
        patches=params.patches,
    )

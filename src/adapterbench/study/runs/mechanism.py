"""What an adapter makes of image prompts: its tokens, and its fit of seen and unseen images."""

from pathlib import Path

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from torch import Tensor

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.storage import load_adapter
from adapterbench.formats.encoded import Batch, EncodedSplit
from adapterbench.frozen.conditions import unet_inputs
from adapterbench.frozen.load import load_part
from adapterbench.frozen.texts import as_texts
from adapterbench.study.runs.files import Mechanism
from adapterbench.training.loop import seeded
from adapterbench.training.loss import denoising_loss, draw_noise

IMAGES = 256
"""Most images per split; noise and timesteps are the same for every adapter."""


@torch.no_grad()
def measure_mechanism(folder: Path, encoded: Path, backbone: Path, split: str) -> Mechanism:
    """Measure a trained adapter that reads embeddings of images.

    Args:
        folder: the adapter.
        encoded: folder of stage `encode`.
        backbone: folder of the base model.
        split: the scored split.

    Raises:
        UserError: an input is missing, damaged or does not fit the others.
    """
    unet = load_part(backbone, "unet").to(memory_format=torch.channels_last)
    adapter = load_adapter(folder, unet)
    adapter.attach(unet)
    schedule = DDPMScheduler.from_config(load_part(backbone, "scheduler").config)

    def loss(data: EncodedSplit) -> float:
        batch = first(data)
        noise, t = draw_noise(schedule, batch.latents.shape, seeded(0))
        texts = as_texts(data.empty[None], None)[[0] * len(t)]
        conditions = unet_inputs(texts, batch.latents, batch.image_embeds[:, None])
        return float(denoising_loss(unet, schedule, batch.latents, conditions, noise, t))

    seen, unseen = (EncodedSplit(encoded, it) for it in ("train", split))
    tokens = image_tokens(adapter, first(unseen).image_embeds)
    return Mechanism(
        token_norm=float(tokens.norm(dim=-1).mean()),
        token_rank=effective_rank(tokens.flatten(1)),
        seen_loss=loss(seen),
        unseen_loss=loss(unseen),
    )


def first(data: EncodedSplit) -> Batch:
    """The first images of a split with their first phrasings."""
    count = min(IMAGES, len(data))
    return data.gather(torch.arange(count), torch.zeros(count))


def image_tokens(
    adapter: Adapter, image_embeds: Float[Tensor, "batch features"]
) -> Float[Tensor, "batch tokens dim"]:
    """The tokens of each image."""
    return adapter(image_embeds[:, None])


def effective_rank(rows: Float[Tensor, "images features"]) -> float:
    """exp of the entropy of the variances along the principal axes (Roy & Vetterli 2007).

    Args:
        rows: one per image; 1 if all lie on a line, at most the number of features.
    """
    values = torch.linalg.svdvals((rows - rows.mean(dim=0)).double()).square()
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())

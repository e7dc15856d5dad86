"""Count floating point operations with torch on the meta device, without weights.

Matrix products, convolutions and attention are counted, a multiply-add as two operations; norms and
activations are not. All counts are per sample. What does not grow with the batch counts for each
sample: the product B A of DoRA, 3 % of a pass of SD 1.5 at rank 128.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.cli.architecture import TEXT_ENCODERS, Shapes
from adapterbench.frozen.conditions import blank_texts, unet_inputs


@dataclass(frozen=True)
class Passes:
    """Operations of a UNet for one sample."""

    forward: int
    """Operations of a prediction."""
    backward: int
    """Operations of the gradients of the adapter's weights; 0 without an adapter."""


def build_unet(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """A frozen UNet on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(dict(config)).requires_grad_(False)


def unet_passes(unet: UNet2DConditionModel, adapter: Adapter | None, shapes: Shapes) -> Passes:
    """Count the UNet's forward pass, and the backward pass to the weights of `adapter`.

    Args:
        unet: frozen, on the meta device.
        adapter: attached to `unet`, on the meta device; None for the bare model.
        shapes: of a sample; `patches` are those that the adapter reads, if it reads patches.
    """
    with torch.device("meta"):
        prompt = None
        if adapter:
            patches = shapes.patches[:1] if adapter.reads_patches and shapes.patches else []
            prompt = torch.empty(1, 1, *patches, adapter.embed_dim)
        latents, step = torch.empty(1, *shapes.latents), torch.empty(1, dtype=torch.long)
        conditions = unet_inputs(blank_texts(unet.config, *shapes.text), latents, prompt)
        with FlopCounterMode(display=False) as counter:
            predicted = unet(latents, step, **conditions).sample
            forward = counter.get_total_flops()
            if adapter:
                predicted.sum().backward()
    return Passes(forward, counter.get_total_flops() - forward)


TEXT_MODELS = dict(zip(TEXT_ENCODERS, (CLIPTextModel, CLIPTextModelWithProjection), strict=True))
"""The class of each text encoder."""


def text_flops(configs: Mapping[str, Mapping[str, Any]], shapes: Shapes) -> int:
    """Operations of CLIP text encoders, by part, for one caption."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        ids = torch.empty(1, shapes.text[0], dtype=torch.long)
        for part, config in configs.items():
            TEXT_MODELS[part](CLIPTextConfig(**config))(ids)
    return int(counter.get_total_flops())


def decoder_flops(config: Mapping[str, Any], shapes: Shapes) -> int:
    """Operations of a VAE decoder for one image."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        AutoencoderKL.from_config(dict(config)).decode(torch.empty(1, *shapes.latents))
    return int(counter.get_total_flops())

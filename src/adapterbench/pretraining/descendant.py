"""Fine-tune a descendant of the small backbone: a LoRA on its UNet for another drawing style."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict

from adapterbench.core.config import Count
from adapterbench.frozen.load import load_part
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.pretraining.unet import TextParams, encode, text_loss
from adapterbench.training.loop import FitResult, OnLog, fit

ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2")
"""Names of the layers with a LoRA: attention, and the convolutions of the residual blocks."""


class DescendantParams(TextParams):
    """Style and training of a descendant."""

    style: str
    """Folder of drawings in the package: `color` or `black`."""
    rank: Count
    """Rank r of `W' = W + B A`, `B A` of rank r."""


def train(
    params: DescendantParams,
    images: CaptionedImages,
    backbone: Path,
    resume: Path,
    on_log: OnLog,
) -> tuple[UNet2DConditionModel, FitResult]:
    """Train a LoRA on captioned images, on their device; return the UNet with it.

    The backbone is frozen.
    """
    unet, vae, text, tokenizer, schedule = (
        load_part(backbone, part)
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    )
    data = encode(images, vae, text, tokenizer)
    torch.manual_seed(params.seed)
    adapted(unet, params.rank)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    unet.to(data.latents.device).to(memory_format=torch.channels_last)
    loss = text_loss(unet, schedule, data, params)
    return unet, fit(weights, loss, params, resume, on_log, params.style)


def adapted(unet: UNet2DConditionModel, rank: int) -> UNet2DConditionModel:
    """Freeze the UNet and add a trainable LoRA that is initialised to zero effect."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ADAPTED)))
    return unet


def save(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the LoRA alone as diffusers does: `pytorch_lora_weights.safetensors`, fp16."""
    # with peft's names: diffusers' older names cover attention only
    weights = get_peft_model_state_dict(unet)
    layers = {name: weight.half().contiguous() for name, weight in weights.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)

"""A fine-tuned descendant of the small backbone: a LoRA over its UNet that draws another style."""

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
"""Names of the layers that get a LoRA: attention, and the convolutions of the residual blocks."""


class DescendantParams(TextParams):
    """How a descendant is trained."""

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
    """Teach the frozen backbone to answer the captions with these images, by a LoRA."""
    unet, vae, text, tokenizer, schedule = (
        load_part(backbone, part)
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    )
    data = encode(images, vae, text, tokenizer)
    torch.manual_seed(params.seed)
    adapted(unet, params.rank)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    unet.to(memory_format=torch.channels_last)
    loss = text_loss(unet, schedule, data, params)
    return unet, fit(weights, loss, params, resume, on_log, params.style)


def adapted(unet: UNet2DConditionModel, rank: int) -> UNet2DConditionModel:
    """The frozen UNet with a fresh LoRA, which alone learns and at first changes nothing."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ADAPTED)))
    return unet


def save(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the LoRA alone as diffusers does: `pytorch_lora_weights.safetensors`, fp16."""
    # in peft's own names: diffusers' old ones exist for attention alone
    weights = get_peft_model_state_dict(unet)
    layers = {name: weight.half().contiguous() for name, weight in weights.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)

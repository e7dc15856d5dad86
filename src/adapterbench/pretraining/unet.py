"""Train the small text-to-image `UNet2DConditionModel`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from adapterbench.core.config import FitParams
from adapterbench.frozen.load import load_clip
from adapterbench.pretraining.clip import text_model, tokenize
from adapterbench.pretraining.images import CaptionedImages, to_signed
from adapterbench.training.loop import FitResult, Loss, OnLog, batch_indices, fit
from adapterbench.training.loss import NoiseSchedule, denoising_loss, draw_noise


class TextParams(FitParams):
    """Training of text to image."""

    drop_text: float
    """Share of samples with the empty caption, for classifier-free guidance."""


class UnetParams(TextParams):
    """Architecture and training of the UNet."""

    block_out_channels: tuple[int, ...]
    """Channels per level; each level after the first halves the resolution."""
    layers_per_block: int
    """Residual layers per level, each followed by cross-attention."""
    head_width: int
    """Channels per attention head."""


@dataclass(frozen=True)
class TextToLatents:
    """Training data of the UNet, encoded once."""

    latents: Tensor
    """Scaled latents `(N, C, h, w)`."""
    texts: Tensor
    """Text embeddings of the phrasings `(N, P, L, D)`."""
    empty: Tensor
    """Embedding of the empty caption `(L, D)`."""


def schedule() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with zero terminal SNR, v-prediction (Lin et al. 2023)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build(params: UnetParams, latents: Tensor, text_width: int) -> UNet2DConditionModel:
    """An untrained UNet with cross-attention in every block."""
    levels = len(params.block_out_channels)
    return UNet2DConditionModel(
        sample_size=latents.shape[-1],
        in_channels=latents.shape[1],
        out_channels=latents.shape[1],
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=params.block_out_channels,
        layers_per_block=params.layers_per_block,
        cross_attention_dim=text_width,
        # in diffusers this argument is the number of heads
        attention_head_dim=tuple(width // params.head_width for width in params.block_out_channels),
    )


@torch.no_grad()
def encode(
    images: CaptionedImages, vae: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer
) -> TextToLatents:
    """Encode all images and their phrasings, on the device of the images.

    Every image must have as many phrasings.
    """
    device = images.pixels.device
    networks: tuple[nn.Module, ...] = (vae, text)
    for network in networks:
        network.to(device)
    chunks = tqdm(images.pixels.split(64), desc="encode", mininterval=1)
    latents = torch.cat([vae.encode(to_signed(x)).latent_dist.mode() for x in chunks])
    phrasings = len(images.captions[0])
    ids = tokenize([t for texts in images.captions for t in texts], tokenizer).to(device)
    embedded = torch.cat([text(chunk).last_hidden_state for chunk in ids.split(256)])
    empty = text(tokenize([""], tokenizer).to(device)).last_hidden_state[0]
    return TextToLatents(
        latents * vae.config["scaling_factor"],
        embedded.unflatten(0, (len(images), phrasings)),
        empty,
    )


def train(
    params: UnetParams,
    data: TextToLatents,
    resume: Path,
    on_log: OnLog,
) -> tuple[UNet2DConditionModel, FitResult]:
    """Train the UNet from scratch on the device of `data`; return it with averaged weights."""
    torch.manual_seed(params.seed)
    unet = build(params, data.latents, data.texts.shape[-1])
    unet.to(data.latents.device).to(memory_format=torch.channels_last)  # type: ignore[arg-type]  # diffusers' types lose self
    loss = text_loss(unet, schedule(), data, params)
    fitted = fit(list(unet.parameters()), loss, params, resume, on_log, "unet")
    return unet.eval(), fitted


def text_loss(
    unet: UNet2DConditionModel,
    noise_schedule: NoiseSchedule,
    data: TextToLatents,
    params: TextParams,
) -> Loss:
    """Denoising loss of a step; each sample has a random phrasing, or the empty caption."""

    def loss(step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        index = batch_indices(len(data.latents), params.batch_size, params.seed, step)
        draw = torch.rand(len(index), generator=generator) * data.texts.shape[1]
        text = data.texts[index, draw.long()]
        dropped = torch.rand(len(index), generator=generator) < params.drop_text
        text = torch.where(dropped[:, None, None].to(text.device), data.empty, text)
        latents, conditions = data.latents[index], {"encoder_hidden_states": text}
        noise, t = draw_noise(noise_schedule, latents.shape, generator)
        return denoising_loss(unet, noise_schedule, latents, conditions, noise, t)

    return loss


def load_frozen(
    vae: Path, image_encoder: Path
) -> tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer]:
    """Load the frozen parts: the VAE, and the text tower and tokenizer of a CLIP."""
    tokenizer = CLIPTokenizer.from_pretrained(image_encoder, trust_remote_code=False)
    text = text_model(load_clip(f"local-dir:{image_encoder}", None).model, tokenizer)
    autoencoder = AutoencoderKL.from_pretrained(
        vae, torch_dtype=torch.float32, use_safetensors=True
    )
    # `save` would publish where it lay on this machine
    autoencoder.register_to_config(_name_or_path=None)
    return autoencoder, text, tokenizer


def save(
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    folder: Path,
) -> None:
    """Write the pipeline in diffusers layout, fp16 safetensors."""
    # its types have an enumeration as a scheduler, and none without a checker
    others: dict[str, Any] = {
        "scheduler": schedule(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, **others, requires_safety_checker=False
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)

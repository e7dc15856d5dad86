"""Train the small text-to-image `UNet2DConditionModel`, and the text encoder with it.

The text encoder begins as a CLIP's text tower. By itself that tower encodes a caption as a whole,
so that a UNet learns each caption's code by heart and does not know what to make of a new
combination of words. Captions of which random parts are left out, and a text encoder that learns
with the UNet as in latent diffusion (Rombach et al. 2022), make it read the words.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from adapterbench.core.config import Count, FitParams, Fraction, Precision
from adapterbench.core.errors import UserError
from adapterbench.frozen.load import load_clip, load_part
from adapterbench.pretraining.augmentation import thinned, warped
from adapterbench.pretraining.clip import text_model, tokenize
from adapterbench.pretraining.images import CaptionedImages, to_signed
from adapterbench.training.distributed import DistributedContext
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
    image_versions: Count
    """Versions of each image: itself, and others that are `augmentation.warped`."""
    thinned_captions: Annotated[int, Field(ge=0)]
    """Versions of the first phrasing without random parts, beside the phrasings."""
    drop_parts: Fraction
    """Share of the parts of a caption that such a version leaves out."""
    concept_balance: Fraction
    """Images of a concept with n images are drawn in proportion to `n ** -concept_balance`."""
    mixed_precision: Precision
    """Precision of the forward pass; the weights stay fp32."""
    compile: bool
    """Whether to compile both networks with `torch.compile`."""
    first_step: Annotated[int, Field(ge=0)]
    """Step to begin with: above 0 only where weights go on that have been trained before."""


@dataclass(frozen=True)
class TextToLatents:
    """Training data over a frozen text encoder, encoded once."""

    latents: Tensor
    """Scaled latents `(N, C, h, w)`."""
    texts: Tensor
    """Text embeddings of the phrasings `(N, P, L, D)`."""
    empty: Tensor
    """Embedding of the empty caption `(L, D)`."""


@dataclass(frozen=True)
class CaptionsToLatents:
    """Training data of the UNet and its text encoder."""

    latents: Tensor
    """Scaled latents of the versions of each image `(V, N, C, h, w)`."""
    ids: Tensor
    """Token ids of the versions of each caption `(N, P, L)`."""
    empty: Tensor
    """Those of the empty caption `(L,)`."""
    weights: Tensor
    """How often each image is drawn, relative to the others `(N,)`, on the CPU."""


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


@torch.no_grad()
def versions(
    params: UnetParams, images: CaptionedImages, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> CaptionsToLatents:
    """Encode the versions of all images and tokenise those of their captions.

    Every image must have as many phrasings.
    """
    device = images.pixels.device
    encoder: nn.Module = vae
    encoder.to(device)
    generator, rng = torch.Generator().manual_seed(params.seed), random.Random(params.seed)
    latents = []
    for version in tqdm(range(params.image_versions), desc="encode", unit="version"):
        chunks = map(to_signed, images.pixels.split(64))
        shown = (warped(chunk, generator) if version else chunk for chunk in chunks)
        latents.append(torch.cat([vae.encode(chunk).latent_dist.mode() for chunk in shown]))
    captions = [caption_versions(params, texts, rng) for texts in images.captions]
    ids = tokenize([text for texts in captions for text in texts], tokenizer)
    sizes = Counter(images.concepts)
    return CaptionsToLatents(
        torch.stack(latents) * vae.config["scaling_factor"],
        ids.unflatten(0, (len(images), -1)).to(device),
        tokenize([""], tokenizer)[0].to(device),
        torch.tensor([sizes[concept] ** -params.concept_balance for concept in images.concepts]),
    )


def caption_versions(params: UnetParams, phrasings: Sequence[str], rng: random.Random) -> list[str]:
    """The phrasings, then versions of the first one without random parts."""
    made = (thinned(phrasings[0], params.drop_parts, rng) for _ in range(params.thinned_captions))
    return [*phrasings, *made]


def train(
    params: UnetParams,
    data: CaptionsToLatents,
    text: CLIPTextModel,
    resume: Path,
    on_log: OnLog,
    context: DistributedContext,
    unet: UNet2DConditionModel | None = None,
) -> tuple[UNet2DConditionModel, FitResult]:
    """Train the UNet and `text` in place, on the device of `data`; both get averaged weights.

    Args:
        context: of `params.mixed_precision`.
        unet: goes on from these weights; None: from scratch.
    """
    torch.manual_seed(params.seed)
    device = data.latents.device
    unet = unet or build(params, data.latents[0], text.config.hidden_size)
    unet.train().requires_grad_()
    unet.to(device).to(memory_format=torch.channels_last)  # type: ignore[arg-type]  # diffusers' types lose self
    encoder: nn.Module = text
    encoder.to(device).requires_grad_()
    # in bf16 on a CPU, the backward pass of torch's fused attention takes 40 % of a step
    unet.set_attn_processor(AttnProcessor())
    text.set_attn_implementation("eager")
    if params.compile:
        unet.compile()
        text.compile()
    weights = [*unet.parameters(), *text.parameters()]
    loss = joint_loss(unet, text, schedule(), data, params)
    fitted = fit(weights, loss, params, resume, on_log, "unet", context, params.first_step)
    text.eval()
    return unet.eval(), fitted


def joint_loss(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    noise_schedule: NoiseSchedule,
    data: CaptionsToLatents,
    params: UnetParams,
) -> Loss:
    """Denoising loss of a step; each sample has a random version of its image and caption."""
    image_versions, caption_versions = len(data.latents), data.ids.shape[1]

    def loss(_step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        count = params.batch_size
        index = torch.multinomial(data.weights, count, replacement=True, generator=generator)
        of_image = torch.randint(image_versions, (count,), generator=generator)
        of_caption = torch.randint(caption_versions, (count,), generator=generator)
        dropped = torch.rand(count, generator=generator) < params.drop_text
        ids = data.ids[index, of_caption]
        ids = torch.where(dropped[:, None].to(ids.device), data.empty, ids)
        latents = data.latents[of_image, index]
        conditions = {"encoder_hidden_states": text(ids).last_hidden_state}
        noise, t = draw_noise(noise_schedule, latents.shape, generator)
        return denoising_loss(unet, noise_schedule, latents, conditions, noise, t)

    return loss


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


def load_parts(
    params: UnetParams, vae: Path, clip: Path, start: Path | None = None
) -> tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer, UNet2DConditionModel | None]:
    """Load the VAE, and the text encoder and tokenizer of a CLIP; the UNet is to be built.

    Args:
        start: pipeline whose UNet and text encoder are taken; they were trained over `vae`.

    Raises:
        UserError: there is nothing to train from `params.first_step` on.
    """
    if params.first_step >= params.steps or (params.first_step and not start):
        raise UserError(
            f"unet.first_step is {params.first_step:,}: it must be below unet.steps "
            f"({params.steps:,}), and 0 without --start"
        )
    tokenizer = CLIPTokenizer.from_pretrained(clip, trust_remote_code=False)
    autoencoder = AutoencoderKL.from_pretrained(
        vae, torch_dtype=torch.float32, use_safetensors=True
    )
    if start:
        return autoencoder, load_part(start, "text_encoder"), tokenizer, load_part(start, "unet")
    text = text_model(load_clip(f"local-dir:{clip}", None).model, tokenizer)
    return autoencoder, text, tokenizer, None


def save(
    vae: AutoencoderKL,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    folder: Path,
) -> None:
    """Write the pipeline in diffusers layout, fp16 safetensors."""
    for loaded in (vae, unet):
        # it would publish where they lay on this machine
        loaded.register_to_config(_name_or_path=None)
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

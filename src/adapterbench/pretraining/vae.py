"""Train the small `AutoencoderKL`."""

from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

from adapterbench.core.config import FitParams, Fraction
from adapterbench.pretraining.augmentation import rearranged
from adapterbench.pretraining.images import CaptionedImages, to_signed
from adapterbench.training.loop import FitResult, OnLog, batch_indices, fit

KL_WEIGHT = 1e-6
"""As in latent diffusion (Rombach et al. 2022): only bounds the latents."""


INITIAL_LOG_VARIANCE = -6.0


class VaeParams(FitParams):
    """Architecture and training of the VAE."""

    latent_channels: int
    """Channels of the latents."""
    block_out_channels: tuple[int, ...]
    """Channels per level; each level after the first halves the resolution."""
    layers_per_block: int
    """Residual layers per level."""
    perceptual_weight: Annotated[float, Field(ge=0)]
    """Weight of the perceptual loss (Zhang et al. 2018)."""
    max_shift: Annotated[int, Field(ge=0)]
    """Pixels by which a training image is shifted at most; see `augmentation.rearranged`."""
    balance: Fraction
    """Exponent of the whitening: 0 keeps the latents' scales, 1 makes them equal."""


def build(params: VaeParams, resolution: int) -> AutoencoderKL:
    """An untrained VAE without attention, which accepts any image size."""
    levels = len(params.block_out_channels)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=params.block_out_channels,
        layers_per_block=params.layers_per_block,
        latent_channels=params.latent_channels,
        norm_num_groups=8,
        sample_size=resolution,
        mid_block_add_attention=False,
    )
    # start with a small posterior variance: at 1 its noise dominates the latents for many epochs
    with torch.no_grad():
        vae.quant_conv.bias[params.latent_channels :] = INITIAL_LOG_VARIANCE
    return vae


def train(
    params: VaeParams,
    images: CaptionedImages,
    network: nn.Module,
    resume: Path,
    on_log: OnLog,
) -> tuple[AutoencoderKL, FitResult]:
    """Train from scratch on the device of the images.

    The scaling factor is set so that latents have a standard deviation of 1.

    Args:
        network: pretrained timm network for the perceptual loss.
    """
    torch.manual_seed(params.seed)
    device = images.pixels.device
    vae = build(params, images.pixels.shape[-1])
    vae.to(device).to(memory_format=torch.channels_last)  # type: ignore[arg-type]  # diffusers' types lose self
    network.to(device).to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        index = batch_indices(len(images), params.batch_size, params.seed, step)
        x = to_signed(rearranged(images.pixels[index], params.max_shift, generator))
        x = x.to(memory_format=torch.channels_last)
        y, likeness = reconstruction_loss(vae, x, generator)
        if not params.perceptual_weight:
            return likeness
        # on half of the batch: the gradient estimate stays unbiased and the network costs less
        half = slice(len(x) // 2)
        return likeness + params.perceptual_weight * perceptual_loss(network, y[half], x[half])

    fitted = fit(list(vae.parameters()), loss, params, resume, on_log, "vae")
    vae.eval()
    balance(vae, latents_of(vae, images), params.balance)
    vae.register_to_config(scaling_factor=1 / float(latents_of(vae, images).std()))
    return vae, fitted


def reconstruction_loss(
    vae: AutoencoderKL, x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The reconstruction, and MSE + L1 + L1 of the gradients (edges) + KL.

    Args:
        x: images `(B, 3, H, W)` in [-1, 1].
    """
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample(generator)).sample
    edges = sum(F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3))
    kl = posterior.kl().mean() / x[0].numel()
    return y, F.mse_loss(y, x) + 0.1 * F.l1_loss(y, x) + 0.1 * edges + KL_WEIGHT * kl


def perceptual_loss(network: Any, y: Tensor, x: Tensor) -> Tensor:
    """Mean squared distance of unit features at three depths (LPIPS with equal weights)."""

    def features(images: Tensor) -> list[Tensor]:
        maps = network.forward_intermediates(images, indices=(0, 1, 2), intermediates_only=True)
        return [F.normalize(feature_map, dim=1, eps=1e-4) for feature_map in maps]

    with torch.no_grad():
        target = features(x)
    distances = [
        (a - b).square().sum(dim=1).mean() for a, b in zip(features(y), target, strict=True)
    ]
    return torch.stack(distances).mean()


@torch.no_grad()
def latents_of(vae: AutoencoderKL, images: CaptionedImages, count: int = 2048) -> Tensor:
    """Latents of the first `count` images, `(count, C, h, w)`."""
    chunks = images.pixels[:count].split(128)
    return torch.cat([vae.encode(to_signed(chunk)).latent_dist.mode() for chunk in chunks])


@torch.no_grad()
def balance(vae: AutoencoderKL, latents: Tensor, exponent: float) -> None:
    """Rotate the latents to their principal axes and equalise their scales, in place.

    `y = S^-exponent V^T (z - mu)` is folded into the 1x1 convolutions around the latents, so
    reconstructions do not change. Without it, diffusion noise would hide directions of small scale
    long before the others.
    """
    flat = latents.movedim(1, 0).flatten(1).double()  # (C, N h w)
    mean = flat.mean(dim=1)
    scale2, directions = torch.linalg.eigh(torch.cov(flat))
    forward = torch.diag(scale2.sqrt() ** -exponent) @ directions.T
    backward = torch.linalg.inv(forward)
    inside: Any = vae.quant_conv  # other autoencoders have none
    outside: Any = vae.post_quant_conv
    channels = len(mean)
    weight, bias = inside.weight.double(), inside.bias.double()
    weight[:channels] = torch.einsum("ij,jkhw->ikhw", forward, weight[:channels])
    bias[:channels] = forward @ (bias[:channels] - mean)
    # the posterior is not diagonal in the new basis; only its mode is used
    weight[channels:], bias[channels:] = 0, bias[channels:].mean()
    inside.weight.copy_(weight)
    inside.bias.copy_(bias)
    weight = outside.weight.double()
    outside.bias.add_(torch.einsum("ijhw,j->i", weight, mean).to(outside.bias.dtype))
    outside.weight.copy_(torch.einsum("ijhw,jk->ikhw", weight, backward))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode and decode uint8 images `(N, 3, H, W)`."""
    chunks = [
        vae.decode(vae.encode(to_signed(chunk)).latent_dist.mode()).sample
        for chunk in pixels.split(128)
    ]
    return ((torch.cat(chunks).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image `(N,)`, dB; inputs uint8 `(N, 3, H, W)`."""
    mse = (a.double() - b.double()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return 10 * torch.log10(255.0**2 / mse)


def save(vae: AutoencoderKL, folder: Path) -> None:
    """Write in diffusers layout, fp16 safetensors."""
    settings: dict[str, Any] = {"safe_serialization": True}
    half = vae.to(torch.float16)  # type: ignore[arg-type]  # diffusers' types lose self
    half.save_pretrained(folder, **settings)
    vae.to(torch.float32)  # type: ignore[arg-type]  # diffusers' types lose self

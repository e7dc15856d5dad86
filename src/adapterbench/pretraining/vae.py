"""The small `AutoencoderKL`: pixels to latents and back."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from adapterbench.core.config import FitParams
from adapterbench.pretraining.pictures import Pictures, mirrored, to_signed
from adapterbench.training.loop import Fitted, OnLog, batch_indices, fit

KL_WEIGHT = 1e-6
"""As in latent diffusion (Rombach et al. 2022): just keeps the latents bounded."""


INITIAL_LOG_VARIANCE = -6.0


class VaeParams(FitParams):
    """How the VAE is built and trained."""

    latent_channels: int
    """Channels of the latents."""
    block_out_channels: tuple[int, ...]
    """Channels by level; each further level halves the resolution."""
    layers_per_block: int
    """Residual layers a level."""


def build(params: VaeParams, resolution: int) -> AutoencoderKL:
    """An untrained VAE without attention, so that it runs at any size."""
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
    # posteriors start narrow: at unit variance their noise drowns the latents for many epochs
    with torch.no_grad():
        vae.quant_conv.bias[params.latent_channels :] = INITIAL_LOG_VARIANCE
    return vae


def train(
    params: VaeParams,
    pictures: Pictures,
    resume: Path,
    on_log: OnLog,
) -> tuple[AutoencoderKL, Fitted]:
    """Train from scratch; the scaling factor makes the latents' standard deviation 1."""
    torch.manual_seed(params.seed)
    vae = build(params, pictures.pixels.shape[-1]).to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        index = batch_indices(len(pictures), params.batch_size, params.seed, step)
        x = to_signed(mirrored(pictures.pixels[index], 0.5, generator))
        return reconstruction_loss(vae, x.to(memory_format=torch.channels_last), generator)

    fitted = fit(list(vae.parameters()), loss, params, resume, on_log, "vae")
    vae.eval()
    vae.register_to_config(scaling_factor=1 / latent_std(vae, pictures))
    return vae, fitted


def reconstruction_loss(vae: AutoencoderKL, x: Tensor, generator: torch.Generator) -> Tensor:
    """MSE + L1 + L1 of the gradients (edges) + KL; `x` is `(B, 3, H, W)` in [-1, 1]."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample(generator)).sample
    edges = sum(F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3))
    kl = posterior.kl().mean() / x[0].numel()
    return F.mse_loss(y, x) + 0.1 * F.l1_loss(y, x) + 0.1 * edges + KL_WEIGHT * kl


@torch.no_grad()
def latent_std(vae: AutoencoderKL, pictures: Pictures, count: int = 2048) -> float:
    """Standard deviation of the first `count` pictures' latents."""
    latents = [
        vae.encode(to_signed(chunk)).latent_dist.mode()
        for chunk in pictures.pixels[:count].split(128)
    ]
    return float(torch.cat(latents).std())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """uint8 `(N, 3, H, W)` -> uint8 after a round trip through the latents."""
    chunks = [
        vae.decode(vae.encode(to_signed(chunk)).latent_dist.mode()).sample
        for chunk in pixels.split(128)
    ]
    return ((torch.cat(chunks).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture `(N,)`, dB; inputs uint8 `(N, 3, H, W)`."""
    mse = (a.double() - b.double()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return 10 * torch.log10(255.0**2 / mse)


def save(vae: AutoencoderKL, folder: Path) -> None:
    """Write in diffusers layout, fp16 safetensors."""
    settings: dict[str, Any] = {"safe_serialization": True}
    vae.to(torch.float16).save_pretrained(folder, **settings)
    vae.to(torch.float32)

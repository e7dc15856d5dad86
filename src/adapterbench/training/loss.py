"""The denoising loss, a pure function of given noise and timesteps."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr
from jaxtyping import Float, Int64
from torch import Tensor, nn

NoiseSchedule: TypeAlias = DDPMScheduler | DDIMScheduler
"""The schedules of diffusers that a training adds noise by."""


def draw_noise(
    schedule: NoiseSchedule, shape: Sequence[int], generator: torch.Generator
) -> tuple[Float[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]:
    """Draw noise of `shape`, `(B, C, h, w)`, and timesteps `(B,)`, on the CPU."""
    noise = torch.randn(*shape, generator=generator)
    limit = schedule.config["num_train_timesteps"]
    return noise, torch.randint(0, limit, (len(noise),), generator=generator)


def denoising_loss(
    unet: nn.Module,
    schedule: NoiseSchedule,
    latents: Float[Tensor, "batch channels height width"],
    conditions: dict[str, Any],
    noise: Float[Tensor, "batch channels height width"],
    t: Int64[Tensor, " batch"],
    min_snr_gamma: float | None = None,
) -> Float[Tensor, ""]:
    """Mean square error of `unet(z_t, t, conditions)`.

    Args:
        latents: clean scaled latents `(B, C, h, w)`.
        conditions: keyword arguments of the UNet: text, image prompt.
        noise: as `latents`, on any device.
        t: timesteps `(B,)`, on any device.
        min_snr_gamma: weights each sample's error in z_0 by `min(SNR(t), gamma)` (Hang et al.
            2023); `None`: unweighted.

    The target is the noise or the velocity, as the schedule's `prediction_type` says.
    """
    noise, t = noise.to(latents.device, latents.dtype), t.to(latents.device)
    steps: Any = t  # diffusers' types have 32 bits
    noisy = schedule.add_noise(latents, noise, steps)
    prediction = unet(noisy, t, **conditions).sample.float()
    by_velocity = schedule.config["prediction_type"] == "v_prediction"
    target = (schedule.get_velocity(latents, noise, steps) if by_velocity else noise).float()
    if min_snr_gamma is None:
        return F.mse_loss(prediction, target)
    snr = compute_snr(schedule, t)
    # an error e of the noise is e^2 / SNR in z_0, one of the velocity e^2 / (SNR + 1)
    weight = snr.clamp(max=min_snr_gamma) / (snr + 1 if by_velocity else snr)
    return (weight * (prediction - target).square().flatten(1).mean(1)).mean()

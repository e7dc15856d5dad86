"""The denoising loss: pure, every draw from the generator it is given."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from torch import Tensor, nn


def denoising_loss(
    unet: nn.Module,
    schedule: SchedulerMixin,
    latents: Tensor,
    conditions: dict[str, Any],
    generator: torch.Generator,
) -> Tensor:
    """Mean square error of `unet(z_t, t, conditions)`.

    Args:
        latents: clean scaled latents `(B, C, h, w)`.
        conditions: keyword arguments of the UNet: text, image prompt.
        generator: source of the noise and of the timesteps.

    The target is the noise or the velocity, as the schedule's `prediction_type` says.
    """
    device, dtype = latents.device, latents.dtype
    noise = torch.randn(latents.shape, generator=generator).to(device, dtype)
    limit = schedule.config.num_train_timesteps
    t = torch.randint(0, limit, (len(latents),), generator=generator).to(device)
    noisy = schedule.add_noise(latents, noise, t)
    prediction = unet(noisy, t, **conditions).sample.float()
    by_velocity = schedule.config.prediction_type == "v_prediction"
    target = (schedule.get_velocity(latents, noise, t) if by_velocity else noise).float()
    return F.mse_loss(prediction, target)

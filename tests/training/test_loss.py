"""The loss against the formula, computed with numpy from the paper's symbols."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from adapterbench.pretraining.unet import schedule as recipe_schedule
from adapterbench.training.loss import NoiseSchedule, denoising_loss, draw_noise

LATENTS = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(5))


class Fake(nn.Module):
    """Predicts 0.3 z_t and remembers what it was called with."""

    def forward(self, noisy: Tensor, t: Tensor, **conditions: Any) -> SimpleNamespace:
        self.noisy, self.t, self.conditions = noisy, t, conditions
        return SimpleNamespace(sample=0.3 * noisy)


def stable_diffusion(prediction: str) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
    )


def stable_diffusion_alphas() -> np.ndarray:
    """alpha-bar of the schedule above."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


def expected_loss(alphas: np.ndarray, seed: int, velocity: bool) -> float:
    """Ho et al. 2020, eq. 4 and 14; Salimans and Ho 2022, section 4 for v."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(LATENTS.shape, generator=generator).double().numpy()
    t = torch.randint(0, 1000, (len(LATENTS),), generator=generator).numpy()
    signal, spread = (np.sqrt(a)[t][:, None, None, None] for a in (alphas, 1 - alphas))
    x = LATENTS.double().numpy()
    noisy = signal * x + spread * noise
    target = signal * noise - spread * x if velocity else noise
    return float(np.mean((0.3 * noisy - target) ** 2))


def loss_of(
    unet: nn.Module,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    conditions: dict[str, Any] | None = None,
    gamma: float | None = None,
) -> Tensor:
    noise, t = draw_noise(schedule, LATENTS.shape, generator)
    return denoising_loss(unet, schedule, LATENTS, conditions or {}, noise, t, gamma)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_papers(prediction: str) -> None:
    generator = torch.Generator().manual_seed(9)
    loss = loss_of(Fake(), stable_diffusion(prediction), generator)
    expected = expected_loss(stable_diffusion_alphas(), 9, prediction == "v_prediction")
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_is_the_papers(prediction: str) -> None:
    """Hang et al. 2023, section 3.4: the error in z_0 is weighed by min(SNR, gamma)."""
    gamma, velocity = 5.0, prediction == "v_prediction"
    schedule, unet = stable_diffusion(prediction), Fake()
    loss = loss_of(unet, schedule, torch.Generator().manual_seed(9), gamma=gamma)
    alphas = stable_diffusion_alphas()[unet.t.numpy()]
    signal, spread = (np.sqrt(a)[:, None, None, None] for a in (alphas, 1 - alphas))
    noisy, x = unet.noisy.double().numpy(), LATENTS.double().numpy()
    predicted = signal * noisy - spread * 0.3 * noisy if velocity else (
        (noisy - spread * 0.3 * noisy) / signal
    )  # fmt: skip
    errors = ((predicted - x) ** 2).mean(axis=(1, 2, 3))
    expected = (np.minimum(alphas / (1 - alphas), gamma) * errors).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_small_backbones_schedule_ends_in_pure_noise() -> None:
    schedule = recipe_schedule()
    generator = torch.Generator().manual_seed(2)
    loss = loss_of(Fake(), schedule, generator)
    alphas = schedule.alphas_cumprod.double().numpy()
    assert loss.item() == pytest.approx(expected_loss(alphas, 2, velocity=True), rel=1e-5)
    # Lin et al. 2023, algorithm 1
    roots = np.sqrt(stable_diffusion_alphas())
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    np.testing.assert_allclose(np.sqrt(alphas[:-1]), roots[:-1], atol=1e-4)
    assert alphas[-1] == pytest.approx(0, abs=1e-6)


def test_the_unet_gets_its_conditions_and_every_timestep() -> None:
    unet, seen = Fake(), set()
    text = torch.ones(2)
    for step in range(300):
        generator = torch.Generator().manual_seed(step)
        conditions = {"encoder_hidden_states": text}
        loss_of(unet, stable_diffusion("epsilon"), generator, conditions)
        assert unet.conditions["encoder_hidden_states"] is text
        seen.update(unet.t.tolist())
    assert min(seen) < 10
    assert max(seen) > 990
    assert max(seen) < 1000
    assert unet.noisy.shape == LATENTS.shape


def test_draws_come_from_the_generator_alone() -> None:
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(3)
        schedule = stable_diffusion("epsilon")
        losses.append(loss_of(Fake(), schedule, generator).item())
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.manual_seed(seed)))
    assert losses[0] == losses[1]

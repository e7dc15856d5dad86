"""A ControlNet (Zhang et al. 2023) for edge maps over the frozen small UNet."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from PIL import Image
from torch import Tensor, nn

from adapterbench.core.config import FitParams
from adapterbench.formats.edges import edge_map
from adapterbench.formats.image import to_array
from adapterbench.frozen.load import load_part
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.pretraining.unet import TextToLatents, schedule
from adapterbench.training.loop import FitResult, OnLog, batch_indices, fit
from adapterbench.training.loss import denoising_loss, draw_noise


class ControlNetParams(FitParams):
    """Architecture and training of the ControlNet."""

    conditioning_channels: tuple[int, ...]
    """Channels of the edge map's embedding layers; each layer after the first halves the side."""
    drop_text: float
    """Share of samples with the empty caption, so that edges work without a text, too."""


class Controlled(nn.Module):
    """`eps(z_t, t, y, edges)`: a UNet with a ControlNet's residuals in its skip connections."""

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self, noisy: Tensor, t: Tensor, encoder_hidden_states: Tensor, edges: Tensor
    ) -> UNet2DConditionOutput:
        """Predict from `noisy (B, C, h, w)`, texts `(B, L, D)` and edges `(B, 3, H, W)`."""
        down, mid = self.controlnet(
            noisy, t, encoder_hidden_states, controlnet_cond=edges, return_dict=False
        )
        return self.unet(
            noisy,
            t,
            encoder_hidden_states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )


def edges(images: CaptionedImages) -> Tensor:
    """Edge maps of all images, uint8 `(N, 3, H, W)`, on their device."""
    pixels = images.pixels
    arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
    maps = (edge_map(Image.fromarray(array), pixels.shape[-1]) for array in arrays)
    return torch.from_numpy(np.stack([to_array(lines) for lines in maps])).to(pixels.device)


def train(
    params: ControlNetParams,
    backbone: Path,
    data: TextToLatents,
    controls: Tensor,
    resume: Path,
    on_log: OnLog,
) -> tuple[ControlNetModel, FitResult]:
    """Train a copy of the UNet's encoder over the frozen UNet, on the device of `data`.

    The copy is returned with averaged weights.

    Args:
        backbone: folder with the UNet in diffusers layout.
        data: latents and text embeddings of N samples.
        controls: their edge maps, uint8 `(N, 3, H, W)`.
    """
    torch.manual_seed(params.seed)
    unet = load_part(backbone, "unet").to(memory_format=torch.channels_last)
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=params.conditioning_channels
    )
    model = Controlled(unet, controlnet)
    model.to(data.latents.device).to(memory_format=torch.channels_last)
    noise_schedule = schedule()

    def loss(step: int, generator: torch.Generator, _whole: slice) -> Tensor:
        index = batch_indices(len(data.latents), params.batch_size, params.seed, step)
        draw = torch.rand(len(index), generator=generator) * data.texts.shape[1]
        dropped = torch.rand(len(index), generator=generator) < params.drop_text
        dropped = dropped.to(data.texts.device)
        conditions: dict[str, Any] = {
            "encoder_hidden_states": torch.where(
                dropped[:, None, None], data.empty, data.texts[index, draw.long()]
            ),
            "edges": controls[index].float() / 255,
        }
        noise, t = draw_noise(noise_schedule, data.latents[index].shape, generator)
        return denoising_loss(model, noise_schedule, data.latents[index], conditions, noise, t)

    fitted = fit(list(controlnet.parameters()), loss, params, resume, on_log, "controlnet")
    return controlnet.eval(), fitted


def save(controlnet: ControlNetModel, folder: Path) -> None:
    """Write in diffusers layout, fp16 safetensors."""
    half = controlnet.to(torch.float16)  # type: ignore[arg-type]  # diffusers' types lose self
    half.save_pretrained(folder, safe_serialization=True)
    controlnet.to(torch.float32)  # type: ignore[arg-type]  # diffusers' types lose self

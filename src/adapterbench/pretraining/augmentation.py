"""Random versions of images and captions: a model that sees few of them learns them by heart."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNEL_ORDERS = torch.tensor(
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]],
)
MAX_ROTATION, MAX_OFFSET, SCALES = 0.12, 0.05, (0.93, 1.14)
"""Of `warped`: radians, share of the side, and the range of the size."""


def thinned(caption: str, share: float, rng: random.Random) -> str:
    """The caption without a random `share` of its parts, which commas separate; the first stays."""
    first, *others = caption.split(", ")
    return ", ".join([first, *(part for part in others if rng.random() >= share)])


def rearranged(pixels: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Images `(B, C, H, W)` of equal sides, moved pixel by pixel, so that none gets blurred.

    Each is shifted by up to `max_shift` pixels (edge pixels repeat); some are mirrored, turned on
    their side, or get their three channels in another order.
    """
    count, side = len(pixels), pixels.shape[-1]

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count,), generator=generator)

    def positions(share_mirrored: int) -> Tensor:
        shift = draw(2 * max_shift + 1)[:, None] - max_shift
        moved = (torch.arange(side) + shift).clamp(0, side - 1)
        return torch.where(draw(share_mirrored)[:, None] == 0, side - 1 - moved, moved)

    columns, rows = positions(2), positions(4)  # upside down is rarer
    turned = draw(2)[:, None, None] == 0
    across, along = columns[:, None, :], rows[:, :, None]
    x = torch.where(turned, along, across)[:, None]
    y = torch.where(turned, across, along)[:, None]
    channels = CHANNEL_ORDERS[torch.where(draw(2) == 0, draw(len(CHANNEL_ORDERS)), 0)]
    at = (torch.arange(count)[:, None, None, None], channels[:, :, None, None], y, x)
    return pixels[tuple(index.to(pixels.device) for index in at)]


def warped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images `(B, C, H, W)` in [-1, 1], each turned, scaled and shifted a little (bicubic)."""

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(len(images), generator=generator) * (high - low) + low

    angle, zoom = draw(-MAX_ROTATION, MAX_ROTATION), 1 / draw(*SCALES)
    # in the grid's units a side has length 2
    right, down = (draw(-2 * MAX_OFFSET, 2 * MAX_OFFSET) for _ in range(2))
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    first, second = torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    grid = grid.to(images.device)
    options = {"mode": "bicubic", "padding_mode": "border"}
    return F.grid_sample(images, grid, align_corners=False, **options).clamp(-1, 1)

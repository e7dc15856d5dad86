"""Captioned images of whole splits in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapterbench.formats.image import to_array
from adapterbench.formats.shards import read_split

CPU = torch.device("cpu")


@dataclass(frozen=True)
class CaptionedImages:
    """N images: uint8 pixels `(N, 3, H, W)`, the phrasings of each caption, keys and concepts."""

    pixels: Tensor
    captions: list[tuple[str, ...]]
    keys: list[str]
    concepts: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows: Sequence[int]) -> "CaptionedImages":
        """The images with the indices `rows`, in that order."""
        return CaptionedImages(
            self.pixels[list(rows)],
            [self.captions[row] for row in rows],
            [self.keys[row] for row in rows],
            [self.concepts[row] for row in rows],
        )


def load_images(shards: Path, *splits: str, device: torch.device = CPU) -> CaptionedImages:
    """Read splits into the memory of `device` (12 kB per image at 64 pixels)."""
    samples = [sample for split in splits for sample in read_split(shards, split)]
    pixels = torch.from_numpy(np.stack([to_array(sample.image) for sample in samples]))
    return CaptionedImages(
        pixels.to(device),
        [sample.captions for sample in samples],
        [sample.key for sample in samples],
        [str(sample.meta.get("concept", sample.key)) for sample in samples],
    )


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 pixels -> float in [-1, 1], the range of `AutoencoderKL`."""
    return pixels.float() / 127.5 - 1

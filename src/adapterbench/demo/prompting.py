"""From the page's images and settings to the arguments of `load_adapter`'s image prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from adapterbench.demo.settings import ALL_LAYERS, Settings
from adapterbench.exchange.pipeline import ImagePrompt

MASK_SIDE = 256
"""Side of a mask, pixels: generated images are square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The images that a generation is given, RGB."""

    images: Sequence[Image.Image]
    """Reference images."""
    masks: Sequence[Image.Image | None]
    """Where each of them acts, white; None: everywhere."""
    negative: Image.Image | None = None
    control: Image.Image | None = None

    @property
    def all_masks(self) -> list[Image.Image] | None:
        """A mask for each reference image, if they need their own attention; else None."""
        if len(self.images) == 1 and self.masks[0] is None:
            return None
        return [mask or Image.new("L", (MASK_SIDE, MASK_SIDE), 255) for mask in self.masks]

    def encoded(self, prompt: ImagePrompt) -> "Encoded":
        """The same for an adapter, encoded once for all generated images."""
        return Encoded(
            prompt.encode(self.images),
            prompt.encode(self.negative) if self.negative else None,
            self.all_masks,
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """`Inputs` for one adapter."""

    images: Tensor
    """Embeddings `(n, c)`, or patches `(n, S, c)`."""
    negative: Tensor | None
    masks: list[Image.Image] | None


def arguments(prompt: ImagePrompt, inputs: Encoded, settings: Settings) -> dict[str, Any]:
    """Arguments for the pipeline's next call.

    Raises:
        UserError: see `ImagePrompt`.
    """
    return prompt(
        inputs.images,
        layer_scale(prompt, settings, inputs.masks is not None),
        settings.guidance_scale,
        masks=inputs.masks,
        negative=inputs.negative,
        start=settings.start,
        end=settings.end,
    )


def layer_scale(prompt: ImagePrompt, settings: Settings, masked: bool) -> Any:
    """lambda of each image, times that of the preset's layers where one is chosen."""
    scales = [image.scale for image in settings.images]
    if settings.layers == ALL_LAYERS:
        return scales if masked else scales[0]
    preset = prompt.layer_scales(settings.layers, masked)
    return {
        path: [factor * scale for scale in scales] if masked else factor * scales[0]
        for path, factor in preset.items()
    }

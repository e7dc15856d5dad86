"""A CLIP by its open_clip name: it reads images and texts."""

from adapterbench.core.config import Count, Section
from adapterbench.frozen.load import load_clip
from adapterbench.runs.processes import processes
from adapterbench.scoring.evaluator import Evaluator


class Params(Section):
    """Which CLIP."""

    model: str
    """open_clip name, such as `ViT-B-32` or `local-dir:PATH`."""
    pretrained: str | None
    """open_clip weights tag; `null` for a `local-dir:` model."""
    batch_size: Count
    """Images a forward pass."""


def load(params: Params) -> Evaluator:
    """Load the CLIP onto this process's device.

    Raises:
        UserError: no such model or weights.
    """
    clip = load_clip(params.model, params.pretrained).to(processes().device)
    return Evaluator(clip.image_embeds, clip.text_embeds, params.batch_size)

"""A CLIP by its open_clip name; embeds images and texts."""

from adapterbench.core.config import Count, Section
from adapterbench.frozen.load import clip_name, load_clip
from adapterbench.runs.processes import process_state
from adapterbench.scoring.evaluator import Evaluator, Folders


class Params(Section):
    """Name and weights of the CLIP."""

    model: str
    """open_clip name, such as `ViT-B-32` or `local-dir:PATH`; or `backbone:PATH`, relative to the
    backbone's folder."""
    pretrained: str | None
    """open_clip weights tag; `null` for a folder."""
    batch_size: Count
    """Images per forward pass."""


def load(params: Params, folders: Folders) -> Evaluator:
    """Load the CLIP onto this process's device.

    Raises:
        UserError: open_clip knows no such model or weights.
    """
    name = clip_name(params.model, folders.backbone)
    clip = load_clip(name, params.pretrained).to(process_state().device)
    return Evaluator(clip.image_embeds, clip.text_embeds, params.batch_size)

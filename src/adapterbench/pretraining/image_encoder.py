"""The image encoder: a CLIP whose image tower is tuned to the text encoder of the pipeline.

The pipeline's text encoder begins as that CLIP's text tower, but learns with the UNet. Where the
image tower is tuned to it, with the text locked (LiT, Zhai et al. 2022), an image embedding is
close to a linear map of the states that the UNet reads, so an adapter has less to learn.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from adapterbench.core.config import Precision
from adapterbench.pretraining.clip import ContrastParams, contrastive_loss, text_weights, tokenize
from adapterbench.pretraining.images import CaptionedImages
from adapterbench.training.distributed import DistributedContext
from adapterbench.training.loop import FitResult, OnLog, fit


class TuneParams(ContrastParams):
    """Tuning of an image tower."""

    mixed_precision: Precision
    """Precision of the forward pass; the weights stay fp32."""


def tune(
    params: TuneParams,
    images: CaptionedImages,
    model: CLIP,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    resume: Path,
    on_log: OnLog,
    context: DistributedContext,
) -> FitResult:
    """Give `model` the text encoder `text` and tune the rest of it, in place.

    Args:
        images: on the device of `context`.
        text: of the architecture of the model's text tower; its own projection stays and learns.
        context: of `params.mixed_precision`.
    """
    take_text_encoder(model, text)
    device = images.pixels.device
    model.to(device).train().requires_grad_()
    phrasings = pooled_states(images, text.to(device), tokenizer)  # type: ignore[arg-type]  # transformers' types lose self

    def encode_text(pooled: Tensor) -> Tensor:
        return F.normalize(pooled @ model.text_projection, dim=-1)

    loss = contrastive_loss(model, params, images, phrasings, encode_text)
    weights = [*model.visual.parameters(), model.text_projection, model.logit_scale]
    # in bf16 on a CPU, the backward pass of torch's fused attention is slow
    with sdpa_kernel(SDPBackend.MATH):
        fitted = fit(weights, loss, params, resume, on_log, "image_encoder", context)
    model.eval()
    return fitted


@torch.no_grad()
def take_text_encoder(model: CLIP, text: CLIPTextModel) -> None:
    """Copy the weights of `text` into the model's text tower."""
    given = text.state_dict()
    for name, weight in text_weights(model).items():
        weight.copy_(given[name])


@torch.no_grad()
def pooled_states(
    images: CaptionedImages, text: CLIPTextModel, tokenizer: CLIPTokenizer
) -> tuple[Tensor, ...]:
    """The text encoder's states at the end token: of each image, `(P, D)` for P phrasings."""
    ids = tokenize([text for texts in images.captions for text in texts], tokenizer)
    pooled = [text(chunk.to(text.device)).pooler_output for chunk in ids.split(256)]
    return torch.cat(pooled).split([len(texts) for texts in images.captions])

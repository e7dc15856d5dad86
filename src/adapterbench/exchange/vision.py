"""Conversion of open_clip image encoders to `transformers`, for diffusers' IP-Adapter loader."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from adapterbench.core.errors import UserError, one_line
from adapterbench.frozen.load import Clip
from adapterbench.frozen.prompts import patch_features
from adapterbench.frozen.towers import layer_weights, named

ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}
TOLERANCE = 1e-4
"""Largest allowed difference of outputs, relative to the largest value."""


def save_vision(clip: Clip, folder: Path) -> None:
    """Write the image encoder and its preprocessing as `transformers` reads them.

    Args:
        clip: an open_clip model whose image tower is a plain vision transformer.
        folder: gets `model.safetensors`, `config.json` and `preprocessor_config.json`.

    Raises:
        UserError: `transformers` has no equivalent model.
    """
    visual = clip.model.visual
    try:
        model, prepare = vision_model(visual), processor(visual)
        largest = difference(clip, model, prepare)
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise no_counterpart(visual, one_line(error)) from error
    if not largest < TOLERANCE:
        raise no_counterpart(visual, f"its output differs by {largest:.0e}")
    model.save_pretrained(folder)
    prepare.save_pretrained(folder)


@torch.no_grad()
def difference(
    clip: Clip, model: CLIPVisionModelWithProjection, prepare: CLIPImageProcessorPil
) -> float:
    """Largest relative difference of embeddings and patch features of a random image."""
    side = 3 * clip.model.visual.image_size[0]
    noise = torch.randint(0, 256, (side // 2, side, 3), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.to(torch.uint8).numpy())
    out = model(prepare(image, return_tensors="pt").pixel_values, output_hidden_states=True)
    pairs = [
        (clip.image_embeds([image]), out.image_embeds),
        (patch_features(clip, clip.preprocess(image)[None]), out.hidden_states[-2]),
    ]
    return max(float((ours - theirs).abs().max() / ours.abs().max()) for ours, theirs in pairs)


def no_counterpart(visual: nn.Module, why: str) -> UserError:
    """The error for an image encoder that cannot be converted."""
    return UserError(
        f"this image encoder ({type(visual).__name__}) has no counterpart in transformers ({why}): "
        "choose --format ip-adapter"
    )


def vision_model(visual: Any) -> CLIPVisionModelWithProjection:
    """The image tower with the same weights."""
    blocks = visual.transformer.resblocks
    inner = blocks[0].mlp
    config = CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels,
        intermediate_size=inner.c_fc.out_features,
        projection_dim=visual.output_dim,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        image_size=visual.image_size[0],
        patch_size=visual.patch_size[0],
        hidden_act=ACTIVATIONS[type(inner.gelu).__name__],
    )
    model = CLIPVisionModelWithProjection(config)
    model.load_state_dict(vision_weights(visual))
    return model.eval()


@torch.no_grad()
def vision_weights(visual: Any) -> dict[str, Tensor]:
    """open_clip's weights under the names of `transformers`."""
    weights = {
        "embeddings.class_embedding": visual.class_embedding,
        "embeddings.patch_embedding.weight": visual.conv1.weight,
        "embeddings.position_embedding.weight": visual.positional_embedding,
        **named("pre_layrnorm", visual.ln_pre),  # spelled so in transformers
        **named("post_layernorm", visual.ln_post),
    }
    weights |= layer_weights(visual.transformer.resblocks)
    renamed = {f"vision_model.{name}": weight for name, weight in weights.items()}
    return renamed | {"visual_projection.weight": visual.proj.T.contiguous()}


def processor(visual: Any) -> CLIPImageProcessorPil:
    """Scale the shorter side, crop the centre, normalise: the transform of open_clip's CLIPs.

    It scales with Pillow, as open_clip does: the faster one of torchvision rounds differently.
    """
    side = visual.image_size[0]
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(visual.image_mean),
        image_std=list(visual.image_std),
    )

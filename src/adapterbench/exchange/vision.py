"""An open_clip image encoder as `transformers` has it, for diffusers' own IP-Adapter loader."""

from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from adapterbench.core.errors import UserError
from adapterbench.frozen.load import Clip
from adapterbench.frozen.towers import layer_weights, named

ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu"}


def save_vision(clip: Clip, folder: Path) -> None:
    """Write the image encoder and its preprocessing as `transformers` reads them.

    Args:
        clip: an open_clip model whose image tower is a plain vision transformer.
        folder: gets `model.safetensors`, `config.json` and `preprocessor_config.json`.

    Raises:
        UserError: the image tower is of another kind.
    """
    visual = clip.model.visual
    vision_model(visual).save_pretrained(folder)
    processor(visual).save_pretrained(folder)


def vision_model(visual: nn.Module) -> CLIPVisionModelWithProjection:
    """The image tower with the same weights and outputs.

    Raises:
        UserError: it is no plain vision transformer.
    """
    if not isinstance(visual, VisionTransformer) or visual.pool_type != "tok":
        raise UserError(
            f"this image encoder ({type(visual).__name__}) has no counterpart in transformers: "
            "choose --format ip-adapter"
        )
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
def vision_weights(visual: VisionTransformer) -> dict[str, Tensor]:
    """open_clip's weights under the names of `transformers`."""
    weights = {
        "embeddings.class_embedding": visual.class_embedding,
        "embeddings.patch_embedding.weight": visual.conv1.weight,
        "embeddings.position_embedding.weight": visual.positional_embedding,
        **named("pre_layrnorm", visual.ln_pre),  # sic
        **named("post_layernorm", visual.ln_post),
    }
    weights |= layer_weights(visual.transformer.resblocks)
    found = {f"vision_model.{name}": weight for name, weight in weights.items()}
    return found | {"visual_projection.weight": visual.proj.T.contiguous()}


def processor(visual: VisionTransformer) -> CLIPImageProcessor:
    """Scale the shorter side, crop the centre, normalise: the transform of open_clip's CLIPs."""
    side = visual.image_size[0]
    return CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(visual.image_mean),
        image_std=list(visual.image_std),
    )

"""A toy backbone, the rows of the contract tests, and the few things that all of them need."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import parse_variant

EMBED_DIM = 24
WIDTH = 32

MLP = {"projection": "mlp", "tokens": 4, "hidden_layers": 2, "expansion": 4}
DECOUPLED_FAMILY: dict[str, dict[str, Any]] = {
    "ip_adapter": {"projection": "linear", "attention": "decoupled", "tokens": 4},
    "ip_adapter_mlp": {**MLP, "attention": "decoupled"},
    "ip_adapter_lora": {"projection": "linear", "attention": "lora", "tokens": 4, "rank": 8},
    "ip_adapter_mlp_lora": {**MLP, "attention": "lora", "rank": 8},
    "ip_adapter_dora": {"projection": "linear", "attention": "dora", "tokens": 4, "rank": 8},
    "ip_adapter_oft": {"projection": "linear", "attention": "oft", "tokens": 4, "block_size": 8},
    "sixth": {**MLP, "attention": "lora", "tokens": 3, "hidden_layers": 1, "rank": 2, "alpha": 5},
}
VARIANTS = {
    **DECOUPLED_FAMILY,
    "uni_controlnet_global": {
        "projection": "feedforward",
        "attention": "append",
        "tokens": 4,
        "expansion": 4,
    },
}
PROJECTION_LAYERS: dict[str, list[int] | list[str]] = {
    "ip_adapter": [0, 2],
    "ip_adapter_lora": [0, 2],
    "ip_adapter_dora": [0, 2],
    "ip_adapter_oft": [0, 2],
    "ip_adapter_mlp": [0, 2, 4, 6],
    "ip_adapter_mlp_lora": [0, 2, 4, 6],
    "sixth": [0, 2, 4],
    "uni_controlnet_global": ["0.0", "0.2", "1.0", "1.2"],
}
"""By row: layers of the projection, each with a weight and a bias in the adapter's file."""
ADAPTED = ("to_q", "to_k", "to_v", "to_out")
ATTENTION_WEIGHTS = {
    "decoupled": ["to_k.weight", "to_v.weight"],
    "lora": [f"{layer}.lora_{side}.default.weight" for layer in ADAPTED for side in "AB"],
    "dora": [
        f"{layer}.lora_{part}.default.weight"
        for layer in ADAPTED
        for part in ("A", "B", "magnitude_vector")
    ],
    "oft": [f"{layer}.oft_R.default.weight" for layer in ADAPTED],
    "append": [],
}
"""By attention: names of its weights in each layer, in the adapter's file."""
PLUS: dict[str, Any] = {
    "projection": "resampler",
    "attention": "decoupled",
    "tokens": 3,
    "patch_width": EMBED_DIM,
    "channels": 16,
    "depth": 4,
    "heads": 2,
}
"""IP-Adapter "plus"; it is adopted, not trained, so no row of the contract tests."""


def toy_unet(**changes: Any) -> UNet2DConditionModel:
    """A frozen Stable Diffusion UNet of 0.3 M random weights with six cross-attention layers."""
    torch.manual_seed(0)
    config = {
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**config | changes).requires_grad_(False).eval()


def build(variant: dict[str, Any], unet: UNet2DConditionModel, seed: int = 1) -> Adapter:
    """A fresh adapter, always the same."""
    torch.manual_seed(seed)
    return build_adapter(parse_variant(variant), unet, EMBED_DIM)


def trained(adapter: Adapter) -> Adapter:
    """Move every weight away from where it started, as training would."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapter.trainable_parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return adapter


def prompts(images: int = 1, batch: int = 2) -> Tensor:
    """Image embeddings `(batch, images, EMBED_DIM)`."""
    return torch.randn(batch, images, EMBED_DIM, generator=torch.Generator().manual_seed(3))


def call(
    unet: UNet2DConditionModel,
    image_embeds: Tensor | None = None,
    more_text: Tensor | None = None,
    **more: Any,
) -> Tensor:
    """The UNet's prediction on fixed noise and text; `image_embeds` when an adapter is attached.

    `more_text (2, M, WIDTH)` stands behind the text.
    """
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(2, 4, 8, 8, generator=generator).to(unet.dtype)
    text = torch.randn(2, 7, WIDTH, generator=generator).to(unet.dtype)
    if more_text is not None:
        text = torch.cat([text, more_text], dim=1)
    if image_embeds is not None:
        more["added_cond_kwargs"] = {"image_embeds": [image_embeds]}
    return unet(noise, torch.tensor([10, 700]), text, **more).sample

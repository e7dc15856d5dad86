"""Builds the adapter of a variant from the two modules that it names."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from adapterbench.adapters.core.adapter import Adapter, cross_attention_layers
from adapterbench.adapters.core.branch import Branch
from adapterbench.adapters.core.variant import ReadsPatches, Variant, modules
from adapterbench.core.errors import UserError
from adapterbench.core.limits import check_memory


def build_adapter(variant: Variant, unet: UNet2DConditionModel, embed_dim: int) -> Adapter:
    """A fresh adapter for `unet`, in fp32 on its device, not attached yet.

    Initial weights are drawn from torch's global generator, the projection's first: seed it.

    Args:
        variant: also serves as the `Params` of both parts.
        unet: the frozen backbone; only read.
        embed_dim: width c of an image embedding; unused by a projection that reads patches.

    Raises:
        UserError: the variant needs more memory than this machine has or leaves out all layers, or
            the UNet has no cross-attention of a single width.
    """
    attentions = cross_attention_layers(unet)
    widths = {attn.cross_attention_dim for attn in attentions.values()}
    if any(attn.added_kv_proj_dim is not None for attn in attentions.values()):
        raise UserError(
            "this UNet's cross-attention joins text and features in one layer (added_kv_proj), "
            "which no adapter here serves: choose another backbone"
        )
    if len(widths) != 1:
        raise UserError(
            f"an adapter needs cross-attention layers of one token width, this UNet has "
            f"{sorted(widths) or 'none'}: choose another backbone"
        )
    projection, attention = modules(variant)
    read_dim = variant.patch_width if isinstance(variant, ReadsPatches) else embed_dim
    width = widths.pop()
    check_size(variant, read_dim, width)
    adapter = Adapter(
        projection.build(variant, read_dim, width),
        build_branches(variant, attention, attentions),
        read_dim,
        reads_patches=variant.reads_patches,
    )
    return adapter.to(unet.device, torch.float32)


def build_branches(
    variant: Variant, attention: ModuleType, attentions: Mapping[str, Attention]
) -> dict[str, Branch]:
    """The branches of all layers; one of a layer that the variant leaves out changes nothing.

    Raises:
        UserError: it leaves out all of them.
    """
    built = {
        path: attention.build(variant, attn)
        for path, attn in attentions.items()
        if variant.layers is None or any(part in path for part in variant.layers)
    }
    if not built:
        raise UserError(
            f"layers = {list(variant.layers or ())} leaves no cross-attention layer of this UNet: "
            f"name parts of {', '.join(attentions)}"
        )
    if hasattr(attention, "link"):
        attention.link(list(built.values()))
    return {path: built.get(path, Branch()) for path in attentions}


def check_size(variant: Variant, embed_dim: int, width: int) -> None:
    """Reject a projection that needs more memory than this machine has, without building it.

    Raises:
        UserError: it does.
    """
    projection, _ = modules(variant)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        layers = projection.build(variant, embed_dim, width)
    needed = 4 * sum(weight.numel() for weight in layers.parameters())
    fields = sorted(projection.Params.model_fields)
    numbers = ", ".join(f"{name} = {getattr(variant, name)}" for name in fields)
    check_memory(needed, f"a projection with {numbers}", "lower one of them")


def count_parameters(
    variants: Mapping[str, Variant], unet_config: Mapping[str, Any], embed_dim: int
) -> dict[str, int]:
    """Trainable scalars of each variant over a UNet of this configuration; allocates no weight.

    Raises:
        UserError: see `build_adapter`.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(unet_config))
        return {name: build_adapter(it, unet, embed_dim).count for name, it in variants.items()}

"""From a row of `variants:` to an adapter: a variant is data, its two parts are found by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from adapterbench.adapters.core.adapter import Adapter, cross_attention_layers
from adapterbench.core import registry
from adapterbench.core.config import OwnEncoder, Section, parse
from adapterbench.core.errors import UserError
from adapterbench.core.limits import check_memory

KINDS = {
    "projection": "adapterbench.adapters.projections",
    "attention": "adapterbench.adapters.attention",
}
"""The two parts of a variant, and the package with their files."""
RESERVED = {"train", *OwnEncoder.model_fields}
"""Keys of a row that are not the adapter's: overrides of the `train` section, what it reads."""


@dataclass(frozen=True)
class Part:
    """One part of a variant: the module named by its key, and its checked fields."""

    module: ModuleType
    params: Section


def parse_variant(variant: Mapping[str, Any]) -> dict[str, Part]:
    """Check a row and split its fields between its parts.

    Args:
        variant: flat data such as `{projection: linear, attention: lora, tokens: 4, rank: 32}`.

    Returns:
        A `Part` for `projection` and one for `attention`.

    Raises:
        UserError: a part that does not exist, a field that is missing, unknown or of a wrong type.
    """
    if not isinstance(variant, Mapping):
        raise UserError(f"params.yaml: a variant is a mapping of fields, not {variant!r}")
    modules = {}
    for kind, package in KINDS.items():
        if kind not in variant:
            known = ", ".join(registry.keys(package))
            raise UserError(f"params.yaml: variant.{kind} is missing (there are {known})")
        modules[kind] = registry.load(package, variant[kind])
    fields = {kind: set(module.Params.model_fields) for kind, module in modules.items()}
    known_fields = {*KINDS, *RESERVED}.union(*fields.values())
    if unknown := sorted(map(str, variant.keys() - known_fields)):
        chosen = ", ".join(f"{kind}: {variant[kind]}" for kind in KINDS)
        raise UserError(
            f"params.yaml: variant.{unknown[0]} is not a parameter of {{{chosen}}} "
            f"(known: {', '.join(sorted(known_fields))})"
        )
    return {
        kind: Part(module, parse(module.Params, select(variant, fields[kind]), "variant"))
        for kind, module in modules.items()
    }


def select(variant: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
    """The entries of `variant` that are in `fields`."""
    return {name: value for name, value in variant.items() if name in fields}


def build_adapter(
    variant: Mapping[str, Any], unet: UNet2DConditionModel, embed_dim: int
) -> Adapter:
    """A fresh adapter for `unet`, in fp32 on its device, not attached yet.

    Initial weights are drawn from torch's global generator, the projection's first: seed it.

    Args:
        variant: see `parse_variant`.
        unet: the frozen backbone; only read.
        embed_dim: width c of an image embedding; a projection that reads patches needs none.

    Raises:
        UserError: a bad variant, one that this machine cannot hold, or a UNet without
            cross-attention of one width.
    """
    parts = parse_variant(variant)
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
    projection, attention = parts["projection"], parts["attention"]
    patch_width = getattr(projection.params, "patch_width", None)
    read_dim, width = patch_width or embed_dim, widths.pop()
    check_size(projection, read_dim, width)
    adapter = Adapter(
        projection.module.build(projection.params, read_dim, width),
        {path: attention.module.build(attention.params, a) for path, a in attentions.items()},
        read_dim,
        reads_patches=patch_width is not None,
    )
    return adapter.to(unet.device, torch.float32)


def check_size(projection: Part, embed_dim: int, width: int) -> None:
    """Refuse a projection that is larger than this machine, without making it.

    Raises:
        UserError: it is.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        layers = projection.module.build(projection.params, embed_dim, width)
    needed = 4 * sum(weight.numel() for weight in layers.parameters())
    numbers = ", ".join(f"{name} = {value}" for name, value in projection.params)
    check_memory(needed, f"a projection with {numbers}", "lower one of them")


def count_parameters(
    variants: Mapping[str, Mapping[str, Any]], unet_config: Mapping[str, Any], embed_dim: int
) -> dict[str, int]:
    """Trainable scalars of each variant over a UNet of this configuration; allocates no weight.

    Raises:
        UserError: a bad variant (see `build_adapter`).
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(unet_config))
        return {name: build_adapter(row, unet, embed_dim).count for name, row in variants.items()}

"""Weights of an open_clip tower under the names of `transformers`."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def layer_weights(blocks: Iterable[Any]) -> dict[str, Tensor]:
    """The weights of the layers of an open_clip tower, image or text, as in `transformers`."""
    weights: dict[str, Tensor] = {}
    for number, block in enumerate(blocks):
        layer = f"encoder.layers.{number}"
        parts = {
            "layer_norm1": block.ln_1,
            "layer_norm2": block.ln_2,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
            "self_attn.out_proj": block.attn.out_proj,
        }
        for name, module in parts.items():
            weights |= named(f"{layer}.{name}", module)
        for kind in ("weight", "bias"):
            joint = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for letter, piece in zip("qkv", joint, strict=True):
                weights[f"{layer}.self_attn.{letter}_proj.{kind}"] = piece
    return weights


def named(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module under another name."""
    return {f"{name}.{kind}": weight for kind, weight in module.named_parameters()}

"""An MLP in place of IP-Adapter's linear projection."""

from itertools import pairwise
from typing import Literal

from torch import nn

from adapterbench.adapters.core.variant import ReadsEmbedding
from adapterbench.core.config import Depth, Width


class Params(ReadsEmbedding):
    """Fields of a variant with `projection: mlp`."""

    hidden_layers: Depth
    """Hidden layers, a GELU after each."""
    expansion: Width
    """Width of a hidden layer, in multiples of the embedding's width."""
    norm: Literal[False] | None = None
    """`false`: the tokens pass through no LayerNorm."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`c -> e c -> .. -> e c -> K D`, LayerNorm: `(B, embed_dim)` to `(B, K, width)`."""
    widths = [embed_dim] + [params.expansion * embed_dim] * params.hidden_layers
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(
        *layers,
        nn.Linear(widths[-1], params.tokens * width),
        nn.Unflatten(-1, (params.tokens, width)),
        *([nn.LayerNorm(width)] if params.norm is None else []),
    )

"""Uni-ControlNet's global condition encoder `h_g` (Zhao et al. 2023, section 3.3)."""

from torch import nn

from adapterbench.adapters.core.variant import ReadsEmbedding
from adapterbench.core.config import Width


class Params(ReadsEmbedding):
    """Fields of a variant with `projection: feedforward`."""

    expansion: Width
    """Width between the two blocks, in multiples of the embedding's width."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`c -> c -> e c`, then `e c -> e c -> K D`, no norm: `(B, embed_dim)` to `(B, K, width)`."""
    middle = params.expansion * embed_dim
    return nn.Sequential(
        block(embed_dim, middle),
        block(middle, params.tokens * width),
        nn.Unflatten(-1, (params.tokens, width)),
    )


def block(inputs: int, outputs: int) -> nn.Module:
    """Feed-forward block `(.., inputs)` to `(.., outputs)`, GELU inside."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.GELU(), nn.Linear(inputs, outputs))

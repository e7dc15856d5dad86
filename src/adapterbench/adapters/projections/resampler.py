"""The resampler of IP-Adapter Plus: K latents attend to patch features and become the tokens."""

from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import nn

from adapterbench.adapters.core.variant import ReadsPatches
from adapterbench.core.config import Depth, Width

HEAD_WIDTH = 64
"""Channels of an attention head; fixed in the code of other loaders, not stored in files."""


class Params(ReadsPatches):
    """Fields of a variant with `projection: resampler`."""

    channels: Width
    """Channels of a latent."""
    depth: Depth
    """Layers, each of attention and a feed-forward block."""
    heads: Width
    """Attention heads of a layer, 64 channels each."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`(B, S, embed_dim)`, S patches, to `(B, K, width)`; diffusers' implementation."""
    return IPAdapterPlusImageProjection(
        embed_dims=embed_dim,
        output_dims=width,
        hidden_dims=params.channels,
        depth=params.depth,
        dim_head=HEAD_WIDTH,
        heads=params.heads,
        num_queries=params.tokens,
    )

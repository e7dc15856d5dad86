"""The resampler of IP-Adapter "plus": a few latents that attend to the features of patches."""

from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import nn

from adapterbench.core.config import Depth, Section, Width

HEAD_WIDTH = 64
"""Channels of an attention head; the number is in the code of stock loaders, not in the file."""


class Params(Section):
    """Fields of a variant with `projection: resampler`."""

    tokens: Width
    """Image tokens K: the latents."""
    patch_width: Width
    """Channels c of a patch in the last hidden layer but one of the image encoder."""
    channels: Width
    """Channels of a latent."""
    depth: Depth
    """Layers, each of attention and a feed-forward block."""
    heads: Width
    """Attention heads of a layer, 64 channels each."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`(B, S, embed_dim)`, S patches, to `(B, K, width)`, as diffusers has it."""
    return IPAdapterPlusImageProjection(
        embed_dims=embed_dim,
        output_dims=width,
        hidden_dims=params.channels,
        depth=params.depth,
        dim_head=HEAD_WIDTH,
        heads=params.heads,
        num_queries=params.tokens,
    )

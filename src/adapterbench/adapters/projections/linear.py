"""IP-Adapter's projection: one linear layer and a norm (Ye et al. 2023, section 3.2.1)."""

from torch import nn

from adapterbench.adapters.core.variant import ReadsEmbedding


class Params(ReadsEmbedding):
    """Fields of a variant with `projection: linear`."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`LayerNorm(W c_g + b)`: `(B, embed_dim)` to `(B, K, width)`."""
    return nn.Sequential(
        nn.Linear(embed_dim, params.tokens * width),
        nn.Unflatten(-1, (params.tokens, width)),
        nn.LayerNorm(width),
    )

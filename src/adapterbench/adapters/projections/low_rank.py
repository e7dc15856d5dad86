"""IP-Adapter's linear projection at a low rank."""

from torch import nn

from adapterbench.adapters.core.variant import ReadsEmbedding
from adapterbench.core.config import Width


class Params(ReadsEmbedding):
    """Fields of a variant with `projection: low_rank`."""

    projection_rank: Width
    """Rank r of the product of two matrices."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`LayerNorm(A B c_g + b)`, `A (K D, r)`: `(B, embed_dim)` to `(B, K, width)`."""
    return nn.Sequential(
        nn.Linear(embed_dim, params.projection_rank, bias=False),
        nn.Linear(params.projection_rank, params.tokens * width),
        nn.Unflatten(-1, (params.tokens, width)),
        nn.LayerNorm(width),
    )

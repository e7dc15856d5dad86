"""An MLP beside IP-Adapter's linear projection, which it corrects."""

from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.adapters.core.variant import ReadsEmbedding
from adapterbench.core.config import Depth, Width


class Params(ReadsEmbedding):
    """Fields of a variant with `projection: residual`."""

    hidden_layers: Depth
    """Hidden layers of the MLP, a GELU after each."""
    expansion: Width
    """Width of a hidden layer, in multiples of the embedding's width."""
    zero_start: bool
    """Whether the MLP's last layer starts at zero, so that this starts as a linear projection."""


def build(params: Params, embed_dim: int, width: int) -> nn.Module:
    """`LayerNorm(W c_g + b + MLP(c_g))`: `(B, embed_dim)` to `(B, K, width)`."""
    return nn.Sequential(
        Residual(params, embed_dim, params.tokens * width),
        nn.Unflatten(-1, (params.tokens, width)),
        nn.LayerNorm(width),
    )


class Residual(nn.Module):
    """`W x + b + MLP(x)`: `(B, inputs)` to `(B, outputs)`."""

    def __init__(self, params: Params, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        hidden, before = params.expansion * inputs, inputs
        layers: list[nn.Module] = []
        for _ in range(params.hidden_layers):
            layers += [nn.Linear(before, hidden), nn.GELU()]
            before = hidden
        last = nn.Linear(hidden, outputs)
        if params.zero_start:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """See the class."""
        out: Tensor = self.linear(x) + self.mlp(x)
        return out

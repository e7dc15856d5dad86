"""Image branches that are the frozen layer with changed weights, through PEFT's layers."""

from collections.abc import Callable, Container
from typing import Literal, cast

from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from adapterbench.adapters.core.branch import (
    DecoupledBranch,
    FrozenLinear,
    Layer,
    LinearLayer,
    Prompt,
)

Target = Literal["to_q", "to_k", "to_v", "to_out"]
"""One of the four linear layers of an attention."""


class AdaptedBranch(DecoupledBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens; a subclass
    says what `W'` is. The bias `b_O` counts once.
    """

    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.Module

    def __init__(
        self,
        attn: Attention,
        adapt: Callable[[FrozenLinear], nn.Module],
        targets: Container[str] | None = None,
    ) -> None:
        """Put a layer of PEFT around each frozen one.

        Args:
            attn: the frozen layer.
            adapt: such a layer around `x W^T`; its `base_layer` is what it is given.
            targets: which of the four are changed; None: all.
        """
        super().__init__()
        for name, layer in frozen_layers(attn).items():
            frozen = FrozenLinear(layer)
            setattr(self, name, adapt(frozen) if targets is None or name in targets else frozen)

    def bind(self, attn: Attention) -> None:
        """See `Branch.bind`."""
        for name, layer in frozen_layers(attn).items():
            frozen_part(getattr(self, name)).share(layer)

    def keep_weights(self) -> None:
        """See `Branch.keep_weights`."""
        for layer in self.children():
            frozen_part(layer).keep()

    def add_output(
        self, out: Float[Tensor, "batch positions channels"], layer: Layer, prompt: Prompt
    ) -> Float[Tensor, "batch positions channels"]:
        """See `Branch.add_output`."""
        query = self.to_q(layer.features)
        key, value = self.to_k(prompt.tokens), self.to_v(prompt.tokens)
        image = self.attend_images(layer.attn, query, key, value, prompt)
        return out + self.factor * self.to_out(image)


def frozen_part(layer: nn.Module) -> FrozenLinear:
    """The frozen layer in one of PEFT's, or itself."""
    return cast(FrozenLinear, getattr(layer, "base_layer", layer))


def frozen_layers(attn: Attention) -> dict[str, LinearLayer]:
    """`W_Q, W_K, W_V, W_O` of a layer, by the name of what adapts them."""
    out = cast(LinearLayer, attn.to_out[0])
    return {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": out}

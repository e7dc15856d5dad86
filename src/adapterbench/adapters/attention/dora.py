"""Decoupled cross-attention whose image branch is the frozen layer under DoRA (Liu et al. 2024)."""

from typing import Annotated, Any, cast

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from pydantic import Field
from torch import Tensor, nn

from adapterbench.adapters.core.branch import (
    DecoupledBranch,
    FrozenLinear,
    Layer,
    LinearLayer,
    Prompt,
)
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: dora`."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    """Rank r of each of the four updates of a layer."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """LoRA's alpha; the rank when left out."""


def build(params: Params, attn: Attention) -> DecoupledBranch:
    """The branch of a layer."""
    return Dora(attn, params.rank, params.rank if params.alpha is None else params.alpha)


class Dora(DecoupledBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens. Equation 5 of
    the paper splits each weight `(out, in)` into magnitudes `m (out,)` and directions of its rows:

        `W' = m V / ||V||`, `V = W + (alpha / r) B A`, `||V|| (out,)` the norms of the rows.

    `B` starts at zero and `m` at `||W||`, where this is a fresh `decoupled` branch. The gradient
    takes `||V||` as a constant (section 4.3). The bias `b_O` counts once.
    """

    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.Module

    def __init__(self, attn: Attention, rank: int, alpha: float) -> None:
        super().__init__()
        for name, layer in frozen_layers(attn).items():
            setattr(self, name, under_dora(layer, rank, alpha))

    def bind(self, attn: Attention) -> None:
        """See `Branch.bind`; the magnitudes stay those of training."""
        for name, layer in frozen_layers(attn).items():
            getattr(self, name).base_layer.share(layer)

    def keep_weights(self) -> None:
        """See `Branch.keep_weights`."""
        adapted: Any
        for adapted in self.children():
            adapted.base_layer.keep()

    def add_output(
        self, out: Float[Tensor, "batch positions channels"], layer: Layer, prompt: Prompt
    ) -> Float[Tensor, "batch positions channels"]:
        """See `Branch.add_output`."""
        query = self.to_q(layer.features)
        key, value = self.to_k(prompt.tokens), self.to_v(prompt.tokens)
        image = self.attend_images(layer.attn, query, key, value, prompt)
        return out + self.factor * self.to_out(image)


def under_dora(layer: LinearLayer, rank: int, alpha: float) -> LoraLinear:
    """PEFT's layer around a frozen one, without its bias; it changes nothing yet."""
    adapted = LoraLinear(
        FrozenLinear(layer),
        "default",
        LoraConfig(r=rank, lora_alpha=alpha, use_dora=True),  # type: ignore[arg-type]  # see below
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes fractions, and says int
    )
    # PEFT rounds it to the dtype of the layer, and then m / ||W|| is not 1 in fp32
    norms = torch.linalg.norm(layer.weight.detach().float(), dim=1)
    adapted.lora_magnitude_vector["default"].weight = nn.Parameter(norms)
    return adapted


def frozen_layers(attn: Attention) -> dict[str, LinearLayer]:
    """`W_Q, W_K, W_V, W_O` of a layer, by the name of what adapts them."""
    out = cast(LinearLayer, attn.to_out[0])
    return {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": out}

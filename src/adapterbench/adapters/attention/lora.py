"""Decoupled cross-attention whose image branch is the frozen layer under LoRA (Hu et al. 2021)."""

from typing import Annotated, Any, cast

from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from pydantic import Field
from torch import Tensor

from adapterbench.adapters.core.branch import (
    DecoupledBranch,
    FrozenLinear,
    Layer,
    LinearLayer,
    Prompt,
)
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: lora`."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    """Rank r of each of the four LoRAs of a layer."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """LoRA's alpha; the rank when left out."""


def build(params: Params, attn: Attention) -> DecoupledBranch:
    """The branch of a layer."""
    return Lora(attn, params.rank, params.rank if params.alpha is None else params.alpha)


class Lora(DecoupledBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens and
    `W' = W + (alpha / r) B A`. `B` starts at zero, where this is a fresh `decoupled` branch. The
    bias `b_O` counts once.
    """

    to_q: LoraLinear
    to_k: LoraLinear
    to_v: LoraLinear
    to_out: LoraLinear

    def __init__(self, attn: Attention, rank: int, alpha: float) -> None:
        super().__init__()
        config = LoraConfig(r=rank, lora_alpha=alpha)  # type: ignore[arg-type]  # see below
        for name, layer in frozen_layers(attn).items():
            adapted = LoraLinear(
                FrozenLinear(layer),
                "default",
                config,
                r=rank,
                lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes fractions, and says int
            )
            setattr(self, name, adapted)

    def bind(self, attn: Attention) -> None:
        """See `Branch.bind`."""
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


def frozen_layers(attn: Attention) -> dict[str, LinearLayer]:
    """`W_Q, W_K, W_V, W_O` of a layer, by the name of their LoRA."""
    out = cast(LinearLayer, attn.to_out[0])
    return {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": out}

"""Decoupled cross-attention whose image branch is the frozen layer under LoRA (Hu et al. 2021)."""

from typing import Annotated

from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from pydantic import Field

from adapterbench.adapters.core.adapted import AdaptedBranch, Target
from adapterbench.core.config import Section


class Params(Section):
    """Fields of a variant with `attention: lora`."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    """Rank r of each LoRA."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """LoRA's alpha; the rank when left out."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] | None = None
    """Which of the four layers have a LoRA; all when left out."""

    @property
    def numerator(self) -> float:
        """Alpha of the factor alpha / r."""
        return self.rank if self.alpha is None else self.alpha


def build(params: Params, attn: Attention) -> AdaptedBranch:
    """The branch of a layer."""
    return Lora(attn, params)


class Lora(AdaptedBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens and
    `W' = W + (alpha / r) B A`. `B` starts at zero, where this is a fresh `decoupled` branch. The
    bias `b_O` counts once.
    """

    def __init__(self, attn: Attention, params: Params) -> None:
        config = LoraConfig(r=params.rank, lora_alpha=params.numerator)  # type: ignore[arg-type]  # as below
        super().__init__(
            attn,
            lambda layer: LoraLinear(
                layer,
                "default",
                config,
                r=params.rank,
                lora_alpha=params.numerator,  # type: ignore[arg-type]  # PEFT takes fractions, but its annotation says int
            ),
            params.targets,
        )

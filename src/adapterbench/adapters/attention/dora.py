"""Decoupled cross-attention whose image branch is the frozen layer under DoRA (Liu et al. 2024)."""

import torch
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from adapterbench.adapters.attention import lora
from adapterbench.adapters.core.adapted import AdaptedBranch
from adapterbench.adapters.core.branch import FrozenLinear


class Params(lora.Params):
    """Fields of a variant with `attention: dora`."""


def build(params: Params, attn: Attention) -> AdaptedBranch:
    """The branch of a layer."""
    return Dora(attn, params)


class Dora(AdaptedBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens. Equation 5 of
    the paper splits each weight `(out, in)` into magnitudes `m (out,)` and directions of its rows:

        `W' = m V / ||V||`, `V = W + (alpha / r) B A`, `||V|| (out,)` the norms of the rows.

    `B` starts at zero and `m` at `||W||`, where this is a fresh `decoupled` branch. The gradient
    takes `||V||` as a constant (section 4.3). Over another backbone `m` stays as trained. The bias
    `b_O` counts once.
    """

    def __init__(self, attn: Attention, params: Params) -> None:
        super().__init__(attn, lambda layer: under_dora(layer, params), params.targets)


def under_dora(layer: FrozenLinear, params: Params) -> LoraLinear:
    """PEFT's layer around a frozen one, without its bias; it changes nothing yet."""
    adapted = LoraLinear(
        layer,
        "default",
        LoraConfig(r=params.rank, lora_alpha=params.numerator, use_dora=True),  # type: ignore[arg-type]  # as below
        r=params.rank,
        lora_alpha=params.numerator,  # type: ignore[arg-type]  # PEFT takes fractions, and says int
    )
    # PEFT rounds it to the dtype of the layer, and then m / ||W|| is not 1 in fp32
    norms = torch.linalg.norm(layer.weight.detach().float(), dim=1)
    adapted.lora_magnitude_vector["default"].weight = nn.Parameter(norms)
    return adapted

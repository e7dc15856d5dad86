"""Decoupled cross-attention whose image branch is the frozen layer under OFT (Qiu et al. 2023)."""

import math
from typing import Annotated

from diffusers.models.attention_processor import Attention
from peft import OFTConfig
from peft.tuners.oft import Linear as OftLinear
from pydantic import Field

from adapterbench.adapters.core.adapted import AdaptedBranch, frozen_layers
from adapterbench.adapters.core.branch import FrozenLinear
from adapterbench.core.config import Section
from adapterbench.core.errors import UserError


class Params(Section):
    """Fields of a variant with `attention: oft`."""

    block_size: Annotated[int, Field(ge=2, le=4096)]
    """Side b of the blocks of a rotation; it divides the input widths of each layer."""


def build(params: Params, attn: Attention) -> AdaptedBranch:
    """The branch of a layer.

    Raises:
        UserError: the blocks do not divide the layer's widths.
    """
    return Oft(attn, params.block_size)


class Oft(AdaptedBranch):
    """`Z_new = W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`.

    `Q' = Z W'_Q`, `K' = y W'_K`, `V' = y W'_V` with `y (B, M, D)` the image tokens. Each weight
    `(out, in)` is rotated in blocks of b inputs, which keeps the norms of its rows and the angles
    between them:

        `W' = W R`, `R = diag(R_1 .. R_in/b)`, `R_i = (I + Q_i) (I - Q_i)^-1`, `Q_i^T = -Q_i`.

    What is trained are the `b (b - 1) / 2` numbers above the diagonal of each `Q_i`. They start at
    zero, where this is a fresh `decoupled` branch. The bias `b_O` counts once.
    """

    def __init__(self, attn: Attention, block_size: int) -> None:
        widths = [layer.in_features for layer in frozen_layers(attn).values()]
        check_block_size(block_size, widths)
        super().__init__(attn, lambda layer: under_oft(layer, block_size))


def check_block_size(block_size: int, widths: list[int]) -> None:
    """Reject blocks that do not divide the input widths of a layer.

    PEFT would take another size, with a warning.

    Raises:
        UserError: they do not.
    """
    common = math.gcd(*widths)
    if common % block_size:
        raise UserError(
            f"block_size = {block_size} does not divide the widths of a cross-attention layer "
            f"({', '.join(map(str, sorted(set(widths))))}): choose a divisor of {common}"
        )


def under_oft(layer: FrozenLinear, block_size: int) -> OftLinear:
    """PEFT's layer around a frozen one, without its bias; it changes nothing yet."""
    # PEFT's default sums the first terms of a series for R, which are a rotation near Q = 0 only
    config = OFTConfig(oft_block_size=block_size, use_cayley_neumann=False)
    return OftLinear(layer, "default", config, r=0)  # r follows from the block size

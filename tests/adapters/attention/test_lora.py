from typing import Any

import numpy as np
import torch

from adapterbench.adapters.attention.lora import Lora, Params, build

from .reference import check_adapted, layer, numbers

RANK, ALPHA = 3, 6.0


@torch.no_grad()
def test_it_is_the_layer_with_merged_weights() -> None:
    """`W' = W + (alpha / r) B A` merged by hand; the bias of `W_O` counts once."""
    torch.manual_seed(0)
    attn = layer()

    def merged(adapted: Any, weight: np.ndarray) -> np.ndarray:
        up, down = (numbers(side["default"]) for side in (adapted.lora_B, adapted.lora_A))
        return weight + ALPHA / RANK * up @ down

    check_adapted(Lora(attn, RANK, ALPHA), attn, merged)


def test_alpha_is_the_rank_when_left_out() -> None:
    attn = layer()
    assert build(Params(rank=4), attn).to_q.scaling == {"default": 1.0}
    assert build(Params(rank=4, alpha=2), attn).to_q.scaling == {"default": 0.5}

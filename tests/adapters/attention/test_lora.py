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

    check_adapted(Lora(attn, Params(rank=RANK, alpha=ALPHA)), attn, merged)


@torch.no_grad()
def test_what_is_no_target_stays_frozen() -> None:
    torch.manual_seed(0)
    attn = layer()
    branch: Any = build(Params(rank=RANK, alpha=ALPHA, targets=("to_k", "to_v")), attn)
    assert {name.partition(".")[0] for name, _ in branch.named_parameters()} == {"to_k", "to_v"}

    def merged(adapted: Any, weight: np.ndarray) -> np.ndarray:
        if adapted in (branch.to_q, branch.to_out):
            return weight
        up, down = (numbers(side["default"]) for side in (adapted.lora_B, adapted.lora_A))
        return weight + ALPHA / RANK * up @ down

    check_adapted(branch, attn, merged)

    # also where what another adapter has merged is to have no effect, and over another layer
    branch.keep_weights()
    before = branch.to_q.weight.clone()
    attn.to_q.weight.add_(1)
    assert branch.to_q.weight.equal(before)
    branch.bind(attn)
    assert branch.to_q.weight is attn.to_q.weight


def test_alpha_is_the_rank_when_left_out() -> None:
    attn = layer()
    assert build(Params(rank=4), attn).to_q.scaling == {"default": 1.0}
    assert build(Params(rank=4, alpha=2), attn).to_q.scaling == {"default": 0.5}

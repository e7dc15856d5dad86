from typing import Any

import numpy as np
import torch
import toy_adapters as toy
from diffusers import UNet2DConditionModel

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


@torch.no_grad()
def test_a_fresh_one_is_a_fresh_ip_adapter(unet: UNet2DConditionModel) -> None:
    outputs = []
    for name in ("ip_adapter", "ip_adapter_lora"):
        adapter = toy.build(toy.VARIANTS[name], unet)
        adapter.attach(unet)
        outputs.append(toy.call(unet, toy.prompts()))
        adapter.detach(unet)
    # W_O before or after the sum: another rounding
    torch.testing.assert_close(*outputs, atol=4e-6, rtol=0)


def test_alpha_is_the_rank_when_left_out() -> None:
    attn = layer()
    assert build(Params(rank=4), attn).to_q.scaling == {"default": 1.0}
    assert build(Params(rank=4, alpha=2), attn).to_q.scaling == {"default": 0.5}


def test_the_frozen_weight_is_shared_and_not_owned() -> None:
    attn = layer()
    branch = Lora(attn, RANK, ALPHA)
    assert branch.to_q.base_layer.weight is attn.to_q.weight
    assert branch.to_out.base_layer.weight is attn.to_out[0].weight
    assert all("lora_" in name for name in branch.state_dict())
    branch.requires_grad_(True)
    assert not attn.to_q.weight.requires_grad
    assert "FrozenLinear" in repr(branch)

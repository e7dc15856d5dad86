"""What LoRA, DoRA and OFT have in common; what each makes of a weight is in its own file."""

from collections.abc import Callable

import pytest
import torch
import toy_adapters as toy
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from adapterbench.adapters.attention import dora, lora
from adapterbench.adapters.attention.dora import Dora
from adapterbench.adapters.attention.lora import Lora
from adapterbench.adapters.attention.oft import Oft
from adapterbench.adapters.core.adapted import AdaptedBranch

from ..attention.reference import layer

BRANCHES: dict[str, Callable[[Attention], AdaptedBranch]] = {
    "lora": lambda attn: Lora(attn, lora.Params(rank=3, alpha=6.0)),
    "dora": lambda attn: Dora(attn, dora.Params(rank=3, alpha=6.0)),
    "oft": lambda attn: Oft(attn, 4),
}


@torch.no_grad()
@pytest.mark.parametrize("attention", BRANCHES)
def test_a_fresh_one_is_a_fresh_ip_adapter(attention: str, unet: UNet2DConditionModel) -> None:
    outputs = []
    for name in ("ip_adapter", f"ip_adapter_{attention}"):
        adapter = toy.build(toy.VARIANTS[name], unet)
        adapter.attach(unet)
        outputs.append(toy.call(unet, toy.prompts()))
        adapter.detach(unet)
    # W_O before or after the sum: another rounding
    torch.testing.assert_close(*outputs, atol=4e-6, rtol=0)


@pytest.mark.parametrize("attention", BRANCHES)
def test_the_frozen_weight_is_shared_and_not_owned(attention: str) -> None:
    attn = layer()
    branch = BRANCHES[attention](attn)
    for name, weight in (("to_q", attn.to_q.weight), ("to_out", attn.to_out[0].weight)):
        assert getattr(branch, name).base_layer.weight is weight
    assert all("lora_" in name or "oft_R" in name for name in branch.state_dict())
    branch.requires_grad_(True)
    assert not attn.to_q.weight.requires_grad
    assert "FrozenLinear" in repr(branch)

import numpy as np
import torch
import toy_adapters as toy
from diffusers import UNet2DConditionModel

from adapterbench.adapters.attention.lora import Lora, Params, build
from adapterbench.adapters.core.channel import LayerProcessor

from .reference import QUERY, WIDTH, attend, layer, numbers

RANK, ALPHA, SCALE = 3, 6.0, 0.7


@torch.no_grad()
def test_it_is_the_layer_with_merged_weights() -> None:
    """`W' = W + (alpha / r) B A` merged by hand; the bias of `W_O` counts once."""
    torch.manual_seed(0)
    attn = layer()
    branch = Lora(attn, RANK, ALPHA)
    branch.scale = SCALE
    for weight in branch.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    features, text = torch.randn(3, 10, QUERY), torch.randn(3, 7, WIDTH)
    tokens = torch.randn(3, 4, WIDTH)
    attn.set_processor(LayerProcessor([branch], attn.processor))  # type: ignore[arg-type]
    ours = attn(features, encoder_hidden_states=(text, [tokens]))

    frozen = {
        "to_q": numbers(attn.to_q),
        "to_k": numbers(attn.to_k),
        "to_v": numbers(attn.to_v),
        "to_out": numbers(attn.to_out[0]),
    }
    merged = {}
    for name, matrix in frozen.items():
        adapted = getattr(branch, name)
        up, down = (numbers(side["default"]) for side in (adapted.lora_B, adapted.lora_A))
        merged[name] = matrix + ALPHA / RANK * up @ down

    def output(weights: dict[str, np.ndarray], prompt: torch.Tensor) -> np.ndarray:
        z, y = numbers(features), numbers(prompt)
        out = attend(z @ weights["to_q"].T, y @ weights["to_k"].T, y @ weights["to_v"].T)
        return out @ weights["to_out"].T

    expected = output(frozen, text) + numbers(attn.to_out[0].bias) + SCALE * output(merged, tokens)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)


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
    for params, scaling in ((Params(rank=4), 1.0), (Params(rank=4, alpha=2), 0.5)):
        branch = build(params, layer())
        assert isinstance(branch, Lora)
        assert branch.to_q.scaling == {"default": scaling}


def test_the_frozen_weight_is_shared_and_not_owned() -> None:
    attn = layer()
    branch = Lora(attn, RANK, ALPHA)
    assert branch.to_q.base_layer.weight is attn.to_q.weight
    assert branch.to_out.base_layer.weight is attn.to_out[0].weight
    assert all("lora_" in name for name in branch.state_dict())
    branch.requires_grad_(True)
    assert not attn.to_q.weight.requires_grad
    assert "FrozenLinear" in repr(branch)

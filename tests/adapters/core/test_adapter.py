"""The contract of an adapter, over every row of variants."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from toy_adapters import EMBED_DIM, VARIANTS, build, call, prompts, toy_unet, trained

from adapterbench.core.errors import UserError

Variant = dict[str, Any]


@torch.no_grad()
def test_an_image_prompt_changes_the_output(variant: Variant, unet: UNet2DConditionModel) -> None:
    base = call(unet)
    build(variant, unet).attach(unet)
    one, other = call(unet, prompts()), call(unet, -prompts())
    assert one.shape == base.shape
    assert (one - base).abs().max() > 1e-4
    assert (one - other).abs().max() > 1e-4


@torch.no_grad()
def test_scale_zero_is_the_base_to_the_last_bit(
    decoupled_variant: Variant, unet: UNet2DConditionModel
) -> None:
    base = call(unet)
    adapter = trained(build(decoupled_variant, unet))
    adapter.attach(unet)
    adapter.scale = 0
    assert torch.equal(call(unet, prompts()), base)


@torch.no_grad()
def test_detach_restores_the_base_twice_in_a_row(
    variant: Variant, unet: UNet2DConditionModel
) -> None:
    adapter = build(variant, unet)
    output, config, text = call(unet), dict(unet.config), repr(unet)
    weights = copy.deepcopy(unet.state_dict())
    processors = dict(unet.attn_processors)
    for _ in range(2):
        adapter.attach(unet)
        assert not torch.equal(call(unet, prompts()), output)
        adapter.detach(unet)
        assert torch.equal(call(unet), output)
        assert dict(unet.config) == config
        assert repr(unet) == text
        assert unet.attn_processors == processors  # the same objects
        assert unet.encoder_hid_proj is None
        assert unet.state_dict().keys() == weights.keys()
        assert all(torch.equal(weights[name], w) for name, w in unet.state_dict().items())


def gradients(adapter: torch.nn.Module) -> dict[str, float]:
    """The largest absolute gradient of each weight."""
    return {n: float(p.grad.abs().max()) for n, p in adapter.named_parameters()}  # type: ignore[union-attr]


def test_all_adapter_weights_and_no_others_learn(
    variant: Variant, unet: UNet2DConditionModel
) -> None:
    adapter = build(variant, unet)
    adapter.attach(unet)
    optimiser = torch.optim.AdamW(adapter.trainable_parameters(), lr=1e-2)
    call(unet, prompts()).square().mean().backward()
    # LoRA: B starts at zero, so the gradient of A is zero until B has moved
    waiting = {name for name, size in gradients(adapter).items() if size == 0}
    assert waiting == {name for name, _ in adapter.named_parameters() if "lora_A" in name}
    before = copy.deepcopy(adapter.state_dict())
    for _ in range(2):
        optimiser.step()
        optimiser.zero_grad()
        call(unet, prompts()).square().mean().backward()
    assert min(gradients(adapter).values()) > 0
    assert all(not torch.equal(before[name], w) for name, w in adapter.state_dict().items())
    assert all(weight.grad is None for weight in unet.parameters())


def test_the_weights_are_all_trained_and_all_saved(
    variant: Variant, unet: UNet2DConditionModel
) -> None:
    adapter = build(variant, unet)
    assert adapter.state_dict().keys() == dict(adapter.named_parameters()).keys()
    assert sum(w.numel() for w in adapter.state_dict().values()) == adapter.count
    base = {weight.data_ptr() for weight in unet.parameters()}
    assert base.isdisjoint(weight.data_ptr() for weight in adapter.trainable_parameters())


@torch.no_grad()
def test_a_seed_fixes_the_initial_weights(variant: Variant, unet: UNet2DConditionModel) -> None:
    one, same, other = (build(variant, unet, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_image_prompts_are_a_set(variant: Variant, unet: UNet2DConditionModel) -> None:
    """Two prompts give 2 K tokens, in no order; a prompt given twice counts once (if decoupled)."""
    adapter = trained(build(variant, unet))
    adapter.attach(unet)
    two = prompts(images=2)
    assert adapter(two).shape == (2, 2 * variant["tokens"], 32)
    output = call(unet, two)
    torch.testing.assert_close(output, call(unet, two.flip(1)), atol=2e-6, rtol=0)
    assert (output - call(unet, two[:, :1])).abs().max() > 1e-4
    if variant["attention"] != "append":
        twice = call(unet, two[:, [0, 0]])
        torch.testing.assert_close(twice, call(unet, two[:, :1]), atol=2e-6, rtol=0)


def test_gradient_checkpointing_changes_no_gradient(variant: Variant) -> None:
    results = []
    for checkpointing in (False, True):
        unet = toy_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        adapter = trained(build(variant, unet))
        adapter.attach(unet)
        call(unet, prompts()).square().mean().backward()
        results.append([weight.grad for weight in adapter.trainable_parameters()])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fp32_adapter_learns_over_a_half_precision_unet(
    variant: Variant, dtype: torch.dtype, unet: UNet2DConditionModel
) -> None:
    exact = build(variant, unet)
    exact.attach(unet)
    with torch.no_grad():
        reference = call(unet, prompts())
    exact.detach(unet)
    unet.to(dtype)  # type: ignore[arg-type]  # diffusers' types lose self
    adapter = build(variant, unet)
    adapter.attach(unet)
    output = call(unet, prompts())
    assert output.dtype == dtype
    tolerance = 0.1 if dtype == torch.bfloat16 else 0.02
    torch.testing.assert_close(output.float(), reference, atol=tolerance, rtol=0)
    output.float().square().mean().backward()
    for weight in adapter.trainable_parameters():
        assert weight.dtype == torch.float32
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


@torch.no_grad()
def test_scale_of_single_layers(decoupled_variant: Variant, unet: UNet2DConditionModel) -> None:
    adapter = trained(build(decoupled_variant, unet))
    adapter.attach(unet)
    path, *others = adapter.layers
    adapter.scale = {path: 0.5}
    assert adapter.scale == {path: 0.5, **dict.fromkeys(others, 0.0)}
    one_layer = call(unet, prompts())
    adapter.scale = 0.5
    assert set(adapter.scale.values()) == {0.5}
    assert not torch.equal(one_layer, call(unet, prompts()))
    with pytest.raises(UserError, match="no layer 'nowhere'"):
        adapter.scale = {"nowhere": 1.0}


@torch.no_grad()
def test_an_adapter_serves_another_backbone_of_the_same_layout(
    variant: Variant, unet: UNet2DConditionModel
) -> None:
    """Its frozen weights are those of the UNet it is attached to, not of the one it began with."""
    other = toy_unet()
    for weight in other.parameters():
        weight.mul_(1.1)
    adapter = trained(build(variant, unet))
    fresh = build(variant, other)
    fresh.load_state_dict(adapter.state_dict())
    fresh.attach(other)
    expected = call(other, prompts())
    fresh.detach(other)
    adapter.attach(unet)
    adapter.detach(unet)
    adapter.attach(other)
    assert torch.equal(call(other, prompts()), expected)


def test_misuse_is_explained_in_one_line(unet: UNet2DConditionModel) -> None:
    adapter, second = (build(VARIANTS["ip_adapter"], unet) for _ in range(2))
    with pytest.raises(UserError, match="not attached"):
        adapter.detach(unet)
    adapter.attach(unet)
    with pytest.raises(UserError, match="already has an adapter"):
        second.attach(unet)
    with pytest.raises(UserError, match="not attached"):
        second.detach(unet)
    with pytest.raises(UserError, match=rf"\(2, 1, 5\).*takes \(batch, prompts, {EMBED_DIM}\)"):
        call(unet, torch.zeros(2, 1, 5))
    with pytest.raises(UserError, match="image encoder it was trained with"):
        adapter(torch.zeros(2, EMBED_DIM))
    deeper = toy_unet(layers_per_block=2)
    with pytest.raises(UserError, match="has 7 cross-attention layers, the UNet 11"):
        second.attach(deeper)

"""Masks, shares and the weight of a step, over every kind of branch."""

from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from toy_adapters import VARIANTS, build, call, prompts, trained

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.core.errors import UserError

KINDS = [
    "ip_adapter",
    "ip_adapter_lora",
    "ip_adapter_dora",
    "ip_adapter_oft",
    "uni_controlnet_global",
]
HALF = (torch.arange(64) % 64 < 32).float().expand(64, 64)
"""White on the left."""


@pytest.fixture(params=KINDS)
def adapter(request: pytest.FixtureRequest, unet: UNet2DConditionModel) -> Adapter:
    """Attached."""
    adapter = trained(build(VARIANTS[request.param], unet))
    adapter.attach(unet)
    return adapter


def masked(unet: UNet2DConditionModel, embeds: torch.Tensor, *masks: Any) -> torch.Tensor:
    each = {"ip_adapter_masks": [torch.stack(masks)[None]]}
    return call(unet, embeds, cross_attention_kwargs=each)


@torch.no_grad()
def test_a_mask_bounds_what_a_layer_does(adapter: Adapter, unet: UNet2DConditionModel) -> None:
    """In the layer itself nothing leaks: outside its mask an image prompt changes no feature."""
    path = "mid_block.attentions.0.transformer_blocks.0.attn2"
    attn = cast(Attention, unet.get_submodule(path))
    text, tokens = torch.randn(1, 7, 32), adapter(prompts(1, 1))
    features = torch.randn(1, 64, attn.query_dim)

    def layer(*images: torch.Tensor, masks: Any = None) -> torch.Tensor:
        return attn(
            features, encoder_hidden_states=(text, list(images)), ip_adapter_masks=masks
        ).view(8, 8, -1)

    whole, part = layer(tokens), layer(tokens, masks=[HALF[None, None]])
    adapter.detach(unet)
    base = attn(features, encoder_hidden_states=text).view(8, 8, -1)
    torch.testing.assert_close(part[:, :2], whole[:, :2], atol=1e-6, rtol=0)
    torch.testing.assert_close(part[:, 6:], base[:, 6:], atol=1e-6, rtol=0)
    assert (whole - base).abs().min(dim=-1).values.max() > 1e-5


SIDE, SHARE = 32, 0.5
"""Latent pixels, and what those outside the mask may change of what those inside do, on average:
the UNet's other layers, of random weights, spread what the masked ones add."""


@torch.no_grad()
def test_latents_outside_the_mask_change_by_less_than_half(
    adapter: Adapter, unet: UNet2DConditionModel
) -> None:
    torch.manual_seed(7)
    noise, text = torch.randn(1, 4, SIDE, SIDE), torch.randn(1, 7, 32)
    mask = {"ip_adapter_masks": [HALF[None, None]]}
    image = {"image_embeds": [prompts(1, 1)]}
    made = unet(noise, 500, text, added_cond_kwargs=image, cross_attention_kwargs=mask).sample
    adapter.detach(unet)
    change = (made - unet(noise, 500, text).sample).abs()
    inside, outside = change[..., : SIDE // 2].mean(), change[..., SIDE // 2 :].mean()
    assert 1e-4 < outside < SHARE * inside


@torch.no_grad()
def test_a_white_mask_is_none_and_a_black_one_no_image(
    adapter: Adapter, unet: UNet2DConditionModel
) -> None:
    whole = call(unet, prompts(1))
    white, black = torch.ones(64, 64), torch.zeros(64, 64)
    torch.testing.assert_close(masked(unet, prompts(1), white), whole, atol=2e-6, rtol=0)
    without = masked(unet, prompts(1), black)
    adapter.detach(unet)
    torch.testing.assert_close(without, call(unet), atol=2e-6, rtol=0)


@torch.no_grad()
@pytest.mark.usefixtures("adapter")
def test_each_image_has_its_mask(unet: UNet2DConditionModel) -> None:
    both = masked(unet, prompts(2), HALF, 1 - HALF)
    assert (both - masked(unet, prompts(2), 1 - HALF, HALF)).abs().max() > 1e-3
    swapped = masked(unet, prompts(2).flip(1), 1 - HALF, HALF)
    torch.testing.assert_close(both, swapped, atol=2e-6, rtol=0)


@torch.no_grad()
def test_a_share_is_how_often_an_image_is_given(
    adapter: Adapter, unet: UNet2DConditionModel
) -> None:
    two = prompts(2)
    thrice = call(unet, two[:, [0, 0, 0, 1]])
    adapter.prompt_weights = [3.0, 1.0]
    torch.testing.assert_close(call(unet, two), thrice, atol=2e-6, rtol=0)
    adapter.prompt_weights = [0.0, 1.0]
    one = call(unet, two)
    adapter.prompt_weights = None
    torch.testing.assert_close(one, call(unet, two[:, 1:]), atol=2e-6, rtol=0)


@torch.no_grad()
def test_the_weight_of_a_step(adapter: Adapter, unet: UNet2DConditionModel) -> None:
    """0 is the base model to the last bit, 1 the adapter, and between them it is between."""
    seen = []

    def weight_at(timestep: torch.Tensor | float) -> float:
        seen.append(torch.as_tensor(timestep).tolist())
        return weight

    whole = call(unet, prompts())
    adapter.weight_at = weight_at
    outputs = []
    for weight in (0.0, 0.5, 1.0):  # noqa: B007
        outputs.append(call(unet, prompts()))
    assert seen == [[10, 700]] * 3
    assert torch.equal(outputs[2], whole)
    assert not torch.equal(outputs[1], whole)
    adapter.detach(unet)
    assert torch.equal(outputs[0], call(unet))
    assert (outputs[1] - outputs[0]).norm() < (whole - outputs[0]).norm()


@torch.no_grad()
def test_lambda_of_each_masked_image(adapter: Adapter, unet: UNet2DConditionModel) -> None:
    adapter.scale = [0.7, 0.7]
    same = masked(unet, prompts(2), HALF, 1 - HALF)
    adapter.scale = 0.7
    expected = masked(unet, prompts(2), HALF, 1 - HALF)
    torch.testing.assert_close(same, expected, atol=2e-6, rtol=0)
    adapter.scale = [0.7, 0.1]
    assert (masked(unet, prompts(2), HALF, 1 - HALF) - expected).abs().max() > 1e-4


MASK = torch.ones(1, 1, 64, 64)
REFUSED: dict[str, list[Any]] = {
    "a list with a tensor": [torch.ones(64, 64), [MASK, MASK], [], "mask.png", 3, {"a": MASK}],
    "not a tensor": [[torch.ones(64, 64)], ["mask.png"], [torch.ones(2, 1, 64, 64)]],
    "for 1 image": [[torch.ones(1, 2, 64, 64)], [torch.ones(1, 0, 64, 64)]],
    "in the image's proportions": [[torch.ones(1, 1, 64, 32)], [torch.ones(1, 1, 48, 64)]],
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_masks_are_refused_in_one_line(message: str, unet: UNet2DConditionModel) -> None:
    build(VARIANTS["ip_adapter"], unet).attach(unet)
    for masks in REFUSED[message]:
        with pytest.raises(UserError, match=message) as error:
            call(unet, prompts(), cross_attention_kwargs={"ip_adapter_masks": masks})
        assert "\n" not in str(error.value)


def test_numbers_for_other_images_are_refused_in_one_line(unet: UNet2DConditionModel) -> None:
    adapter = build(VARIANTS["ip_adapter"], unet)
    adapter.attach(unet)
    mask = {"ip_adapter_masks": [MASK]}

    def refused(message: str, **more: Any) -> None:
        with pytest.raises(UserError, match=message) as error:
            call(unet, prompts(), **more)
        assert "\n" not in str(error.value)

    adapter.prompt_weights = [1.0, 2.0]
    refused("2 weights for 1 image")
    refused("weights apply to images that share", cross_attention_kwargs=mask)
    for shares in ([], [0.0], [-1.0, 2.0], [float("nan")], ["much"]):
        with pytest.raises(UserError, match="weights = "):
            adapter.prompt_weights = shares
    adapter.prompt_weights = None
    adapter.scale = [0.5, 0.5]
    refused(r"scale = \[0.5, 0.5\] for 1 image\(s\) without masks")
    refused(r"scale = \[0.5, 0.5\] for 1 image\(s\): give", cross_attention_kwargs=mask)

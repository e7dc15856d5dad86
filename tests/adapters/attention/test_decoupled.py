"""Parity with diffusers' own IP-Adapter for the same weights."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from torch import Tensor
from toy_adapters import VARIANTS, build, call, prompts, trained

from adapterbench.adapters.attention.decoupled import Decoupled
from adapterbench.adapters.core.channel import LayerProcessor

from .reference import QUERY, WIDTH, layer

SCALE = 0.7


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 2])
def test_the_unet_gives_what_diffusers_gives(images: int, unet: UNet2DConditionModel) -> None:
    """Loaded through diffusers' own loader, from the published IP-Adapter format."""
    adapter = trained(build(VARIANTS["ip_adapter"], unet))
    adapter.attach(unet)
    adapter.scale = SCALE
    ours = call(unet, prompts(images))
    adapter.detach(unet)

    linear, _, norm = adapter.projection.children()
    published = {
        "image_proj": {
            "proj.weight": linear.weight,
            "proj.bias": linear.bias,
            "norm.weight": norm.weight,
            "norm.bias": norm.bias,
        },
        "ip_adapter": {
            f"{2 * index + 1}.{name}_ip.weight": getattr(branch, name).weight
            for index, branch in enumerate(adapter.layers.values())
            for name in ("to_k", "to_v")
        },
    }
    unet._load_ip_adapter_weights([published], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            processor.scale = [SCALE]
    torch.testing.assert_close(ours, call(unet, prompts(images)), atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (3, 10, QUERY)),
        ({}, (3, QUERY, 2, 5)),
        ({"norm_num_groups": 4, "residual_connection": True}, (3, 10, QUERY)),
        ({"residual_connection": True, "rescale_output_factor": 1.5}, (3, QUERY, 2, 5)),
        ({"cross_attention_norm": "layer_norm"}, (3, 10, QUERY)),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_every_kind_of_layer_gives_what_diffusers_gives(
    changes: dict[str, object], shape: tuple[int, ...], masked: bool
) -> None:
    torch.manual_seed(0)
    attn = layer(**changes)
    branch = Decoupled(attn)
    branch.scale = SCALE
    torch.nn.init.normal_(branch.to_k.weight)
    theirs = IPAdapterAttnProcessor2_0(16, WIDTH, num_tokens=(4,), scale=SCALE)
    theirs.load_state_dict(
        {f"{name}_ip.0.weight": getattr(branch, name).weight for name in ("to_k", "to_v")}
    )
    features, text, tokens = torch.randn(shape), torch.randn(3, 7, WIDTH), torch.randn(3, 4, WIDTH)
    mask = None
    if masked:
        mask = torch.where(torch.arange(7) < 5, 0.0, -10000.0).expand(3, 1, 7)

    def run(prompt: tuple[Tensor, list[Tensor]]) -> Tensor:
        return attn(features, encoder_hidden_states=prompt, attention_mask=mask)

    base = attn.processor
    attn.set_processor(LayerProcessor([branch], base))  # type: ignore[arg-type]
    ours = run((text, [tokens]))
    attn.set_processor(theirs)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, run((text, [tokens[:, None]])), atol=1e-6, rtol=0)


@torch.no_grad()
def test_it_starts_from_the_text_weights() -> None:
    attn = layer()
    branch = Decoupled(attn)
    assert torch.equal(branch.to_k.weight, attn.to_k.weight)
    assert torch.equal(branch.to_v.weight, attn.to_v.weight)
    branch.to_k.weight += 1
    assert not torch.equal(branch.to_k.weight, attn.to_k.weight)

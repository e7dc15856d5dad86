"""The counter against sums done by hand, a multiply-add as two operations."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toy_adapters import EMBED_DIM, VARIANTS, WIDTH, toy_unet
from toy_xl import POOLED, WIDTHS, unet_xl

from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.cli.architecture import Shapes
from adapterbench.cli.flops import Passes, build_unet, decoder_flops, text_flops, unet_passes

SHAPES = Shapes((4, 8, 8), text=(7, WIDTH), image=EMBED_DIM, patches=None, text_encoders=1)
LAYERS = [(64, 32), (16, 64), (16, 64), (16, 64), (16, 64), (64, 32), (64, 32)]
"""Positions and width of the toy's cross-attentions: two down, one in the middle, four up."""


def test_the_counter_on_layers_done_by_hand() -> None:
    with torch.device("meta"):
        with FlopCounterMode(display=False) as counter:
            out = nn.Linear(3, 5)(torch.empty(2, 3, requires_grad=True))
            assert counter.get_total_flops() == 2 * 2 * 3 * 5
            out.sum().backward()  # as much for the input's gradient, and for the weight's
            assert counter.get_total_flops() == 3 * 2 * 2 * 3 * 5
        with FlopCounterMode(display=False) as counter:
            nn.Conv2d(3, 5, 3, padding=1)(torch.empty(2, 3, 8, 8))
            assert counter.get_total_flops() == 2 * 2 * 8 * 8 * 3 * 5 * 3 * 3
        with FlopCounterMode(display=False) as counter:
            query, key = torch.empty(2, 3, 10, 4), torch.empty(2, 3, 6, 4)
            F.scaled_dot_product_attention(query, key, key)
            assert counter.get_total_flops() == 2 * (2 * 2 * 3 * 10 * 6 * 4)


def passes(variant: dict[str, Any] | None) -> Passes:
    unet = build_unet(toy_unet().config)
    adapter = build_adapter(parse_variant(variant), unet, EMBED_DIM) if variant else None
    if adapter:
        adapter.attach(unet)
    return unet_passes(unet, adapter, SHAPES)


def test_what_an_adapter_adds_done_by_hand() -> None:
    """Four image tokens: projected once, then keys, values, scores and sums in each layer."""
    projection = 2 * EMBED_DIM * 4 * WIDTH
    layers = sum(2 * (2 * 4 * WIDTH * C) + 2 * (2 * N * 4 * C) for N, C in LAYERS)
    bare = passes(None)
    adapted = passes(VARIANTS["ip_adapter"])
    assert adapted.forward - bare.forward == projection + layers
    assert bare.backward == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_operations_grow_with_the_batch(name: str) -> None:
    """The count on the meta device is that of real tensors, of a batch of three.

    A batch shares DoRA's product of its factors.
    """
    unet = toy_unet()
    adapter = build_adapter(parse_variant(VARIANTS[name]), unet, EMBED_DIM)
    adapter.attach(unet)
    # the counter does not know the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prompts = {"image_embeds": [torch.zeros(3, 1, EMBED_DIM)]}
        noise, text = torch.zeros(3, *SHAPES.latents), torch.zeros(3, *SHAPES.text)
        unet(noise, torch.zeros(3), text, added_cond_kwargs=prompts)
    one, three = passes(VARIANTS[name]).forward, counter.get_total_flops()
    assert one < three < 3 * one if name == "ip_adapter_dora" else three == 3 * one


def test_sdxl_reads_sizes_and_pooled_texts() -> None:
    """Counted as diffusers runs it, on real tensors."""
    unet, noise = unet_xl(), torch.zeros(1, 4, 8, 8)
    added = {"text_embeds": torch.zeros(1, POOLED), "time_ids": torch.zeros(1, 6)}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet(noise, 1, torch.zeros(1, 7, sum(WIDTHS)), added_cond_kwargs=added)
    shapes = Shapes((4, 8, 8), (7, sum(WIDTHS)), EMBED_DIM, patches=None, text_encoders=2)
    assert unet_passes(build_unet(unet.config), None, shapes).forward == counter.get_total_flops()


def test_two_text_encoders_cost_both() -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    first, second = ({"text_encoder": config}, {"text_encoder_2": {**config, "projection_dim": 8}})
    alone, both = text_flops(first, SHAPES), text_flops(first | second, SHAPES)
    assert both - 2 * alone == 2 * 32 * 8  # the projection of one token


def test_a_backward_pass_costs_less_than_two_forward_ones() -> None:
    """No gradient of a frozen weight: of a layer's two backward products one is spared."""
    counted = passes(VARIANTS["ip_adapter"])
    assert 0.5 * counted.forward < counted.backward < 2 * counted.forward


def test_the_decoder_grows_with_the_image() -> None:
    config = AutoencoderKL(block_out_channels=(32,), mid_block_add_attention=False).config
    small = decoder_flops(config, SHAPES)
    large = decoder_flops(config, replace(SHAPES, latents=(4, 16, 16)))
    assert large == 4 * small > 0

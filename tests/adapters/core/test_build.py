import json
from importlib.resources import files
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from toy_adapters import EMBED_DIM, VARIANTS, build

from adapterbench.adapters.core.build import count_parameters
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError

ON_SD15 = {
    "ip_adapter": 20_746_752,
    "ip_adapter_mlp": 30_712_320,
    "ip_adapter_lora": 14_307_840,
    "ip_adapter_mlp_lora": 24_273_408,
    "uni_controlnet_global": 11_804_160,
}


def sd15() -> dict[str, Any]:
    return json.loads((files("adapterbench") / "backbone/configs/sd15_unet.json").read_text())


@pytest.mark.parametrize(("name", "count"), ON_SD15.items())
def test_exact_counts_on_stable_diffusion_15(name: str, count: int) -> None:
    variant = VARIANTS[name]
    if "rank" in variant:
        variant = {**variant, "rank": 128}
    assert count_parameters({name: parse_variant(variant)}, sd15(), embed_dim=512) == {name: count}


def test_counts_of_dora_and_oft_by_hand() -> None:
    """Widths C of the features in the 16 cross-attention layers; the tokens are 768 wide."""
    widths = 5 * [320] + 5 * [640] + 6 * [1280]  # two at each level down, one middle, three each up
    projection = 512 * 4 * 768 + 4 * 768 + 2 * 768  # linear, its bias, the norm
    inputs = sum(C + 768 + 768 + C for C in widths)  # of Q, K, V, O
    outputs = sum(4 * C for C in widths)
    assert (projection, inputs, outputs) == (1_577_472, 49_536, 49_920)
    r, b = 128, 32
    rows = {
        "dora": {**VARIANTS["ip_adapter_dora"], "rank": r},
        "oft": {**VARIANTS["ip_adapter_oft"], "block_size": b},
    }
    expected = {
        # A (r, in), B (out, r), and a magnitude for each output
        "dora": projection + r * (inputs + outputs) + outputs,
        # for each of in / b blocks, what is above the diagonal
        "oft": projection + inputs // b * (b * (b - 1) // 2),
    }
    assert expected == {"dora": 14_357_760, "oft": 2_345_280}
    variants = {name: parse_variant(row) for name, row in rows.items()}
    assert count_parameters(variants, sd15(), embed_dim=512) == expected


def test_count_of_plus_by_hand() -> None:
    """Its published sizes, over the patches of a ViT-B/32: 768 wide, in layers as wide."""
    widths = 5 * [320] + 5 * [640] + 6 * [1280]
    C, D, tokens, depth, heads = 768, 768, 16, 4, 12  # inside the resampler; of image tokens
    queries = tokens * C
    ends = (C * C + C) + (C * D + D) + 2 * D  # linear in, linear out, the norm
    norms = 3 * 2 * C  # of patches, of latents, before the feed-forward block
    attention = 4 * C * 64 * heads  # Q, K, V, O without biases
    feedforward = 2 * C * 4 * C
    resampler = queries + ends + depth * (norms + attention + feedforward)
    layers = sum(2 * D * width for width in widths)  # K and V
    assert (resampler, layers) == (29_524_992, 19_169_280)
    row = {
        **{"projection": "resampler", "attention": "decoupled", "tokens": tokens},
        **{"patch_width": C, "channels": C, "depth": depth, "heads": heads},
    }
    found = count_parameters({"plus": parse_variant(row)}, sd15(), embed_dim=512)
    assert found == {"plus": resampler + layers}


def test_the_count_is_that_of_the_built_adapter(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    both = dict.fromkeys(("it", "again"), parse_variant(variant))
    counts = count_parameters(both, unet.config, EMBED_DIM)
    assert counts == dict.fromkeys(("it", "again"), build(variant, unet).count)


def test_train_overrides_are_not_the_adapters_business(unet: UNet2DConditionModel) -> None:
    row = {**VARIANTS["ip_adapter"], "train": {"learning_rate": 1e-5}}
    assert build(row, unet).count == build(VARIANTS["ip_adapter"], unet).count


def test_widths_come_from_the_layers() -> None:
    config = dict(sd15(), cross_attention_dim=[64, 64, 128, 64])
    with pytest.raises(UserError, match=r"one token width, this UNet has \[64, 128\]"):
        count_parameters({"it": parse_variant(VARIANTS["ip_adapter"])}, config, 512)
    blocks = {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}
    config = dict(sd15(), **blocks, mid_block_type=None)
    with pytest.raises(UserError, match="this UNet has none"):
        count_parameters({"it": parse_variant(VARIANTS["ip_adapter"])}, config, 512)

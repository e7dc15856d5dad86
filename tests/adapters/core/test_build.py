import json
from importlib.resources import files
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from toy_adapters import EMBED_DIM, VARIANTS, build, call, prompts

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


def config(name: str) -> dict[str, Any]:
    path = files("adapterbench") / f"backbone/configs/{name}_unet.json"
    return json.loads(path.read_text())


def sd15() -> dict[str, Any]:
    return config("sd15")


@pytest.mark.parametrize(("name", "count"), ON_SD15.items())
def test_exact_counts_on_stable_diffusion_15(name: str, count: int) -> None:
    variants = {name: parse_variant(deck(name))}
    assert count_parameters(variants, sd15(), embed_dim=512) == {name: count}


def deck(name: str) -> dict[str, Any]:
    """A variant at the size of the original study."""
    row = VARIANTS[name]
    return {**row, "rank": 128} if "rank" in row else row


WIDTHS = {
    # two at each of three levels down, one in the middle, three at each level up
    "sd21": 5 * [320] + 5 * [640] + 6 * [1280],
    # two transformers down, three up, of depth 2 at 640 and 10 at 1280; one of 10 in the middle
    "sdxl": (2 + 3) * 2 * [640] + (2 + 1 + 3) * 10 * [1280],
}
"""Widths C of the features in the cross-attention layers."""
BASES = {"sd21": (1024, 1024, 16), "sdxl": (1280, 2048, 70)}
"""Width c of the image embedding, width D of the tokens, and number of layers."""
ON_BASES = {
    "sd21": {
        "ip_adapter": 29_759_488,
        "ip_adapter_mlp": 63_322_112,
        "ip_adapter_lora": 17_979_392,
        "ip_adapter_mlp_lora": 51_542_016,
        "uni_controlnet_global": 38_810_624,
    },
    "sdxl": {
        "ip_adapter": 351_285_248,
        "ip_adapter_mlp": 415_520_768,
        "ip_adapter_lora": 111_095_808,
        "ip_adapter_mlp_lora": 175_331_328,
        "uni_controlnet_global": 76_369_152,
    },
}


def by_hand(base: str) -> dict[str, int]:
    """Trainable scalars of the five variants over a base model."""
    widths, (c, D, layers) = WIDTHS[base], BASES[base]
    assert len(widths) == layers
    K, r = 4, 128  # image tokens, rank

    def dense(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    norm, inner = 2 * D, 4 * c
    linear = dense(c, K * D) + norm
    mlp = dense(c, inner) + dense(inner, inner) + dense(inner, K * D) + norm
    feedforward = dense(c, c) + dense(c, inner) + dense(inner, inner) + dense(inner, K * D)
    decoupled = sum(2 * C * D for C in widths)  # K', V'
    lora = sum(r * ((C + C) + (D + C) + (D + C) + (C + C)) for C in widths)  # Q, K, V, O
    return {
        "ip_adapter": linear + decoupled,
        "ip_adapter_mlp": mlp + decoupled,
        "ip_adapter_lora": linear + lora,
        "ip_adapter_mlp_lora": mlp + lora,
        "uni_controlnet_global": feedforward,
    }


@pytest.mark.parametrize("base", BASES)
def test_exact_counts_on_other_bases_by_hand(base: str) -> None:
    variants = {name: parse_variant(deck(name)) for name in ON_BASES[base]}
    assert by_hand(base) == ON_BASES[base]
    assert count_parameters(variants, config(base), BASES[base][0]) == ON_BASES[base]


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


def test_layers_that_a_row_leaves_out_change_nothing(unet: UNet2DConditionModel) -> None:
    row = VARIANTS["ip_adapter"]
    some, every = build({**row, "layers": ["mid_block", "up_blocks.0"]}, unet), build(row, unet)
    chosen = [path for path in every.layers if "mid_block" in path or "up_blocks.0" in path]
    assert 0 < len(chosen) < len(every.layers)
    assert [path for path, it in some.layers.items() if list(it.parameters())] == chosen
    outputs = []
    for adapter, scale in ((some, 1.0), (every, dict.fromkeys(chosen, 1.0))):
        adapter.attach(unet)
        adapter.scale = scale
        outputs.append(call(unet, prompts()))
        adapter.detach(unet)
    assert outputs[0].equal(outputs[1])


def test_a_row_that_leaves_out_all_layers_is_rejected(unet: UNet2DConditionModel) -> None:
    with pytest.raises(UserError, match=r"layers = \['middle'\] leaves no .*mid_block"):
        build({**VARIANTS["ip_adapter"], "layers": ["middle"]}, unet)


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

"""What diffusers' own loader does with several adapters, scales, masks and blocks, at 1e-5."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from toy_adapters import PLUS, VARIANTS, build, call, prompts, toy_unet, trained

from adapterbench.adapters.core.adapter import Adapter, attach_together
from adapterbench.core.errors import UserError
from adapterbench.exchange import blocks
from adapterbench.exchange.ip_adapter import Stock, grouped, to_ip_adapter

LEFT = (torch.arange(64) < 32).float().expand(64, 64)
TOP = LEFT.T


def embeds(adapter: Adapter, images: int) -> Tensor:
    found = prompts(5 * images)
    return found.unflatten(1, (images, 5)) if adapter.reads_patches else found[:, :images]


def run(unet: UNet2DConditionModel, image_embeds: list[Tensor], masks: Any) -> Tensor:
    more: dict[str, Any] = (
        {} if masks is None else {"cross_attention_kwargs": {"ip_adapter_masks": masks}}
    )
    return call(unet, added_cond_kwargs={"image_embeds": image_embeds}, **more)


@torch.no_grad()
def differs(
    unet: UNet2DConditionModel,
    rows: list[dict[str, Any]],
    images: list[int],
    scales: list[Any],
    masks: Any = None,
) -> float:
    """The largest difference between diffusers' prediction and ours."""
    adapters = [trained(build(row, unet, seed)) for seed, row in enumerate(rows)]
    inputs = [embeds(*pair) for pair in zip(adapters, images, strict=True)]
    attach_together(adapters, unet)
    for adapter, scale in zip(adapters, scales, strict=True):
        is_blocks = isinstance(scale, dict)
        adapter.scale = blocks.by_layer(scale, adapter.layers) if is_blocks else scale
    ours = run(unet, inputs, masks)
    adapters[-1].detach(unet)
    assert (ours - call(unet)).abs().max() > 1e-3
    weights: Any = [
        grouped(to_ip_adapter(adapter, unet, row["projection"]))
        for adapter, row in zip(adapters, rows, strict=True)
    ]
    stock = Stock(unet)
    stock.load_ip_adapter(weights, [""] * len(rows), [""] * len(rows), image_encoder_folder=None)
    stock.set_ip_adapter_scale(scales)
    return float((ours - run(unet, inputs, masks)).abs().max())


IP = VARIANTS["ip_adapter"]
CASES: dict[str, dict[str, Any]] = {
    "two adapters": {"rows": [IP, IP], "images": [1, 2], "scales": [0.7, 0.3]},
    "plus beside standard": {"rows": [PLUS, IP], "images": [1, 1], "scales": [0.7, 0.3]},
    "three, one of them off": {"rows": [IP] * 3, "images": [1, 1, 1], "scales": [0.7, 0.0, 1.2]},
    "two masks of an adapter": {
        "rows": [IP],
        "images": [2],
        "scales": [0.7],
        "masks": [torch.stack([LEFT, 1 - LEFT])[None]],
    },
    "a scale for each mask": {
        "rows": [IP],
        "images": [2],
        "scales": [[0.7, 0.2]],
        "masks": [torch.stack([LEFT, TOP])[None]],
    },
    "masks of two adapters": {
        "rows": [PLUS, IP],
        "images": [2, 1],
        "scales": [[0.7, 0.2], 0.5],
        "masks": [torch.stack([LEFT, TOP])[None], TOP[None, None]],
    },
    "a mask of one of two": {
        "rows": [IP, IP],
        "images": [1, 2],
        "scales": [0.7, 0.3],
        "masks": [LEFT[None, None], None],
    },
    "masks as one tensor": {
        "rows": [IP, IP],
        "images": [1, 1],
        "scales": [0.7, 0.3],
        "masks": torch.stack([LEFT, TOP])[:, None],
    },
    "grey masks": {
        "rows": [IP],
        "images": [1],
        "scales": [1.0],
        "masks": [torch.linspace(0, 1, 64).expand(1, 1, 64, 64)],
    },
    "blocks of one, number of another": {
        "rows": [IP, IP],
        "images": [1, 1],
        "scales": [{"up": {"block_0": [0.0, 1.0]}}, 0.3],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_prediction(case: str, unet: UNet2DConditionModel) -> None:
    assert differs(unet, **CASES[case]) < 1e-5


DICTIONARIES: list[dict[str, Any]] = [
    {"up": {"block_0": [0.0, 1.0]}},
    {"down": 0.5, "up": {"block_1": 0.3}},
    {"mid": 0.4},
    {"mid": [0.4], "down": {"block_1": [0.2]}},
    {"up": [0.1, 0.9], "down": {"block_0": 1}},
    {"up": {}, "down": 0.25, "mid": 0},
]


@pytest.mark.parametrize("scale", DICTIONARIES, ids=str)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_same_lambda_by_layer(scale: dict[str, Any], depth: int) -> None:
    """Of every layer, by diffusers' own `set_ip_adapter_scale`, over UNets of two depths."""
    unet = toy_unet(transformer_layers_per_block=depth)
    adapter = build(IP, unet)
    ours = blocks.by_layer(scale, adapter.layers)
    weights: Any = [grouped(to_ip_adapter(adapter, unet, "linear"))]
    stock = Stock(unet)
    stock.load_ip_adapter(weights, "", "", image_encoder_folder=None)
    stock.set_ip_adapter_scale(scale)
    processors: dict[str, Any] = unet.attn_processors
    theirs = {path: processors[f"{path}.processor"].scale[0] for path in adapter.layers}
    assert ours == theirs


UNKNOWN: dict[str, list[dict[str, Any]]] = {
    r"no block 'upp' to scale \(blocks: down, down.block_0, .*mid, up": [{"upp": 1, "up": 1}],
    "no block 'up.block_9'": [{"up": {"block_9": 1.0}}, {"up": {"block_9": 1.0}, "mid": 1.0}],
    "no block 'mid.block_0'": [{"mid": {"block_0": 1.0}}],
    "no block 'up.0'": [{"up": {0: 1.0}}],
    "3 scales for up.block_0, which has 2": [{"up": {"block_0": [0, 1, 0]}}],
    "0 scales for down.block_0, which has 1": [{"down": {"block_0": []}}],
    "2 scales for mid.block_0": [{"mid": [0.1, 0.2]}],
}


@pytest.mark.parametrize("message", UNKNOWN)
def test_an_unknown_block_is_refused_in_one_line(message: str, unet: UNet2DConditionModel) -> None:
    """diffusers passes over some of these in silence."""
    paths = build(IP, unet).layers
    for scale in UNKNOWN[message]:
        with pytest.raises(UserError, match=message) as error:
            blocks.by_layer(scale, paths)
        assert "\n" not in str(error.value)


@torch.no_grad()
@pytest.mark.parametrize("first", ["ip_adapter", "ip_adapter_lora", "uni_controlnet_global"])
@pytest.mark.parametrize("second", ["ip_adapter_lora", "uni_controlnet_global"])
def test_adapters_of_every_kind_stand_together(
    first: str, second: str, unet: UNet2DConditionModel
) -> None:
    """One that is off in this step leaves the other alone; both off is the base; both count."""
    base = call(unet)
    adapters = [
        trained(build(VARIANTS[name], unet, seed)) for seed, name in enumerate([first, second])
    ]
    alone = []
    for adapter in adapters:
        adapter.attach(unet)
        alone.append(call(unet, prompts()))
        adapter.detach(unet)
    attach_together(adapters, unet)

    def together(*weights: float) -> Tensor:
        weigh: Callable[[float], Any] = lambda weight: lambda _: weight  # noqa: E731
        for adapter, weight in zip(adapters, weights, strict=True):
            adapter.weight_at = weigh(weight)
        return run(unet, [prompts(), prompts()], None)

    for number, weights in enumerate([(1, 0), (0, 1)]):
        torch.testing.assert_close(together(*weights), alone[number], atol=2e-6, rtol=0)
    assert torch.equal(together(0, 0), base)
    both = together(1, 1)
    assert min((both - one).abs().max() for one in alone) > 1e-4
    adapters[0].detach(unet)
    assert not adapters[1].is_attached(unet)
    assert torch.equal(call(unet), base)

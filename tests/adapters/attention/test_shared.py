"""Keys and values that layers of one width share."""

from pathlib import Path
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from toy_adapters import VARIANTS, build, call, prompts, trained

from adapterbench.adapters.attention.shared import Shared
from adapterbench.adapters.core.storage import load_adapter, save_adapter
from adapterbench.adapters.core.variant import parse_variant

ROW = {**VARIANTS["ip_adapter"], "attention": "shared"}


@torch.no_grad()
def test_it_is_an_ip_adapter_with_equal_keys_and_values(unet: UNet2DConditionModel) -> None:
    shared, separate = trained(build(ROW, unet)), build(VARIANTS["ip_adapter"], unet)
    separate.projection.load_state_dict(shared.projection.state_dict())
    owners: dict[int, Shared] = {}
    for path, branch in shared.layers.items():
        assert isinstance(branch, Shared)
        width = cast(Attention, unet.get_submodule(path)).inner_dim
        owner = owners.setdefault(width, branch)
        for part in ("to_k", "to_v"):
            weight = getattr(owner, part).weight
            getattr(separate.layers[path], part).weight.copy_(weight)
    assert len(owners) == 2
    outputs = []
    for adapter in (shared, separate):
        adapter.attach(unet)
        outputs.append(call(unet, prompts()))
        adapter.detach(unet)
    assert outputs[0].equal(outputs[1])
    # keys and values of two widths, 32 and 64, over tokens of width 32
    assert shared.count == sum(p.numel() for p in shared.projection.parameters()) + 2 * 32 * 96


def test_all_layers_teach_the_shared_weights(unet: UNet2DConditionModel) -> None:
    adapter = build(ROW, unet)
    adapter.attach(unet)
    paths = list(adapter.layers)
    gradients = []
    for path in paths:
        adapter.scale = {path: 1.0}
        adapter.zero_grad()
        call(unet, prompts()).square().mean().backward()
        gradients.append(
            sum(
                float(p.grad.abs().sum())
                for p in adapter.branches.parameters()
                if p.grad is not None
            )
        )
    assert min(gradients) > 0
    assert len(paths) > len(list(adapter.branches.parameters())) // 2


@torch.no_grad()
def test_it_is_saved_once_and_loaded(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    adapter = trained(build(ROW, unet))
    save_adapter(adapter, tmp_path / "it", parse_variant(ROW), {})
    outputs = []
    for one in (adapter, load_adapter(tmp_path / "it", unet)):
        one.attach(unet)
        outputs.append(call(unet, prompts()))
        one.detach(unet)
    assert outputs[0].equal(outputs[1])

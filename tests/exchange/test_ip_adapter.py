"""Adapters through other people's formats, judged by diffusers' and PEFT's own loaders."""

import copy
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_adapters import EMBED_DIM, PLUS, VARIANTS, build, call, prompts, toy_unet, trained

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError
from adapterbench.exchange.ip_adapter import (
    check_ip_adapter,
    check_peft,
    from_ip_adapter,
    full_weight,
    grouped,
    read_checkpoint,
    save_ip_adapter,
    save_peft,
    stock_difference,
    to_ip_adapter,
)

SCALE = 0.7


def made(name: str, unet: UNet2DConditionModel) -> Adapter:
    return trained(build(VARIANTS[name], unet))


def ours(adapter: Adapter, unet: UNet2DConditionModel) -> Tensor:
    """What the UNet gives with our adapter."""
    adapter.attach(unet)
    adapter.scale = SCALE
    output = call(unet, prompts(2))
    adapter.detach(unet)
    return output


def theirs(path: Path, unet: UNet2DConditionModel) -> Tensor:
    """What it gives with the file in diffusers' own classes."""
    unet = copy.deepcopy(unet)
    unet._load_ip_adapter_weights([grouped(load_file(path))], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            processor.scale = [SCALE]
    return call(unet, prompts(2))


@torch.no_grad()
def test_diffusers_gives_the_same(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    adapter, path = made("ip_adapter", unet), tmp_path / "it.safetensors"
    save_ip_adapter(to_ip_adapter(adapter, unet, "linear"), path)
    torch.testing.assert_close(theirs(path, unet), ours(adapter, unet), atol=1e-6, rtol=0)


@torch.no_grad()
def test_of_lora_keys_and_values_go_along(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    """What is left out is the LoRA of Q and O: without it the two agree, with it they differ."""
    adapter, path = made("ip_adapter_lora", unet), tmp_path / "it.safetensors"
    save_ip_adapter(to_ip_adapter(adapter, unet, "linear"), path)
    whole, exported = ours(adapter, unet), theirs(path, unet)
    base = call(unet)
    for branch in adapter.layers.values():
        for name in ("to_q", "to_out"):
            getattr(branch, name).lora_B["default"].weight.zero_()
    torch.testing.assert_close(exported, ours(adapter, unet), atol=4e-6, rtol=0)
    # measured: 41 % of what the image prompt changes at these random weights is another change
    difference = float((whole - exported).norm() / (whole - base).norm())
    assert 0.3 < difference < 0.5


@torch.no_grad()
def test_lora_of_keys_and_values_alone_goes_along_whole(
    unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    row = {**VARIANTS["ip_adapter_lora"], "targets": ["to_k", "to_v"]}
    adapter, path = trained(build(row, unet)), tmp_path / "it.safetensors"
    save_ip_adapter(to_ip_adapter(adapter, unet, "linear"), path)
    torch.testing.assert_close(theirs(path, unet), ours(adapter, unet), atol=4e-6, rtol=0)
    save_peft(adapter, parse_variant(row), tmp_path / "peft")
    merged = PeftModel.from_pretrained(copy.deepcopy(unet), tmp_path / "peft").merge_and_unload()
    for layer_path, branch in adapter.layers.items():
        layer, frozen = (cast(Any, it.get_submodule(layer_path)) for it in (merged, unet))
        torch.testing.assert_close(layer.to_k.weight, full_weight(branch.get_submodule("to_k")))
        assert layer.to_q.weight.equal(frozen.to_q.weight)


@torch.no_grad()
def test_peft_reads_the_lora(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    for name in ("ip_adapter_lora", "sixth"):
        adapter = made(name, unet)
        save_peft(adapter, parse_variant(VARIANTS[name]), tmp_path / name)
        merged = PeftModel.from_pretrained(copy.deepcopy(unet), tmp_path / name).merge_and_unload()
        for path, branch in adapter.layers.items():
            layer = merged.get_submodule(path)
            for part, module in (("to_q", layer.to_q), ("to_out", layer.to_out[0])):
                torch.testing.assert_close(module.weight, full_weight(getattr(branch, part)))


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@torch.no_grad()
def test_out_and_in_again_changes_nothing(
    suffix: str, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    adapter, path = made("ip_adapter", unet), tmp_path / f"it{suffix}"
    save_ip_adapter(to_ip_adapter(adapter, unet, "linear"), path)
    state = torch.get_rng_state()
    variant, loaded = from_ip_adapter(path, unet)
    assert torch.equal(state, torch.get_rng_state())
    assert variant.row() == VARIANTS["ip_adapter"]
    assert loaded.embed_dim == EMBED_DIM
    assert torch.equal(ours(loaded, unet), ours(adapter, unet))


def test_the_names_of_the_original_repository(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    path = tmp_path / "it.bin"
    save_ip_adapter(to_ip_adapter(made("ip_adapter", unet), unet, "linear"), path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint.keys() == {"image_proj", "ip_adapter"}
    kinds = ("weight", "bias")
    assert checkpoint["image_proj"].keys() == {f"{p}.{k}" for p in ("proj", "norm") for k in kinds}
    # as it numbers them: a list of the processors, those of self-attention without weights
    layers = torch.nn.ModuleList(
        torch.nn.ModuleDict(
            {f"{p}_ip": torch.nn.Linear(1, 1, bias=False) for p in ("to_k", "to_v")}
        )
        if "attn2" in name
        else torch.nn.Identity()
        for name in unet.attn_processors
    )
    assert checkpoint["ip_adapter"].keys() == layers.state_dict().keys()


@pytest.mark.parametrize(
    "name",
    [
        "ip_adapter_mlp",
        "ip_adapter_mlp_lora",
        "ip_adapter_dora",
        "ip_adapter_oft",
        "uni_controlnet_global",
        "sixth",
    ],
)
def test_what_no_stock_loader_takes_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"do not support .*import load_adapter"):
        check_ip_adapter(parse_variant(VARIANTS[name]))


def test_other_refusals() -> None:
    with pytest.raises(UserError, match=r"tokens other than 4 \(this adapter has 16\)"):
        check_ip_adapter(parse_variant({**VARIANTS["ip_adapter"], "tokens": 16}))
    with pytest.raises(UserError, match=r"depth other than 4 \(this adapter has 2\)"):
        check_ip_adapter(parse_variant({**PLUS, "depth": 2}))
    with pytest.raises(UserError, match="branches in a part of the layers"):
        check_ip_adapter(parse_variant({**VARIANTS["ip_adapter"], "layers": ["mid_block"]}))
    with pytest.raises(UserError, match="attention 'shared'"):
        check_ip_adapter(parse_variant({**VARIANTS["ip_adapter"], "attention": "shared"}))
    with pytest.raises(UserError, match=r"no LoRA for PEFT.*load_adapter"):
        check_peft(parse_variant(VARIANTS["ip_adapter"]))
    with pytest.raises(UserError, match=r"attention 'dora' has no LoRA for PEFT"):
        check_peft(parse_variant(VARIANTS["ip_adapter_dora"]))
    with pytest.raises(UserError, match=r"ends in .safetensors or .bin"):
        save_ip_adapter({}, Path("it.onnx"))


def test_a_backbone_that_diffusers_does_not_serve_is_refused() -> None:
    """Its loader leaves out the layers of self-attention, which attend to the prompt here."""
    unet = toy_unet(only_cross_attention=True)
    adapter = made("ip_adapter", unet)
    assert len(adapter.layers) > len(made("ip_adapter", toy_unet()).layers)
    with pytest.raises(UserError, match=r"cannot serve this backbone.*import load_adapter"):
        stock_difference(adapter, unet, to_ip_adapter(adapter, unet, "linear"))


@pytest.mark.parametrize("name", ["ip_adapter", "ip_adapter_lora"])
def test_the_difference_to_diffusers_is_measured(name: str, unet: UNet2DConditionModel) -> None:
    adapter = made(name, unet)
    weights = to_ip_adapter(adapter, unet, "linear")
    measured = stock_difference(adapter, copy.deepcopy(unet), weights)
    assert measured < 1e-5 if name == "ip_adapter" else measured > 0.01
    weights["ip_adapter.1.to_v_ip.weight"] = 1.01 * weights["ip_adapter.1.to_v_ip.weight"]
    assert stock_difference(adapter, unet, weights) > 1e-3


class Evil:
    """A pickle that runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.usefixtures("workplace")
def test_a_pickle_runs_nothing() -> None:
    path = Path("evil.bin")
    torch.save({"image_proj": Evil(), "ip_adapter": {}}, path)
    with pytest.raises(UserError, match="cannot be read as weights alone") as error:
        read_checkpoint(path, {})
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()


def test_bad_checkpoints_are_explained(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    def refused(message: str, path: Path, over: UNet2DConditionModel = unet) -> None:
        with pytest.raises(UserError, match=message) as error:
            from_ip_adapter(path, over)
        assert "\n" not in str(error.value)

    good = to_ip_adapter(made("ip_adapter", unet), unet, "linear")

    def written(changes: dict[str, Tensor]) -> Path:
        save_file(good | changes, tmp_path / "changed.safetensors")
        return tmp_path / "changed.safetensors"

    refused("is missing", tmp_path / "none.safetensors")
    refused("is missing", tmp_path / "none.bin")
    for name in ("cut.bin", "cut.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not found</html>")
        refused("cannot be read as weights", tmp_path / name)
    torch.save([1, 2], tmp_path / "list.bin")
    refused("is no IP-Adapter", tmp_path / "list.bin")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    refused("needs the groups image_proj and ip_adapter", tmp_path / "other.safetensors")
    refused("is a folder: name the file in it", tmp_path)
    for number in (math.nan, math.inf):
        bad = good["image_proj.proj.bias"].clone()
        bad[3] = number
        refused("image_proj.proj.bias holds what is not", written({"image_proj.proj.bias": bad}))
    whole = good["ip_adapter.1.to_k_ip.weight"].to(torch.int64)
    refused("ip_adapter.1.* holds what is not", written({"ip_adapter.1.to_k_ip.weight": whole}))
    torch.save({"a": {"b": [{"image_proj": 1}]}, 3: None}, tmp_path / "odd.bin")
    refused("is no IP-Adapter", tmp_path / "odd.bin")
    one = torch.zeros(1, 16, 32)
    refused("FaceID", written({"ip_adapter.0.to_q_lora.down.weight": one}))
    refused("does not fit.*ip_adapter.99", written({"ip_adapter.99.to_k_ip.weight": one}))
    refused("does not fit", written({}), toy_unet(layers_per_block=2))
    refused("does not fit", written({}), toy_unet(cross_attention_dim=48))
    del good["image_proj.norm.weight"]
    refused("neither a linear layer and a norm nor a resampler", written({}))
    refused("neither .*load_ip_adapter", written({"image_proj.latents": one}))

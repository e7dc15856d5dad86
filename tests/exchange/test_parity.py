"""The same weights in the original implementation, PyPI's `ip-adapter`, and in diffusers' own."""

import copy
import importlib
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import diffusers.pipelines.controlnet
import pytest
import torch
from accelerate.utils import save
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from torch import Tensor, nn
from toy_adapters import EMBED_DIM, PLUS, VARIANTS, WIDTH, build, call, prompts, trained

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.core.errors import UserError
from adapterbench.exchange.ip_adapter import from_ip_adapter, grouped, to_ip_adapter

SCALE = 0.7
ROWS = {"standard": VARIANTS["ip_adapter"], "plus": PLUS}


@pytest.fixture(scope="module")
def original() -> ModuleType:
    """The package; diffusers has moved a class that it imports for pipelines not used here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusers.pipelines.controlnet, "MultiControlNetModel", None, raising=False)
        return importlib.import_module("ip_adapter.ip_adapter")


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ROWS[request.param]


@pytest.fixture
def adapter(row: dict[str, Any], unet: UNet2DConditionModel) -> Adapter:
    return trained(build(row, unet))


def read(adapter: Adapter, images: int = 1) -> Tensor:
    """What the adapter reads of some images, for a batch of two."""
    embeds = prompts(5 * images)
    return embeds.unflatten(1, (images, 5)) if adapter.reads_patches else embeds[:, :images]


def ours(adapter: Adapter, unet: UNet2DConditionModel, images: int = 1) -> Tensor:
    adapter.attach(unet)
    adapter.scale = SCALE
    output = call(unet, read(adapter, images))
    adapter.detach(unet)
    return output


def projection(original: ModuleType, row: dict[str, Any]) -> nn.Module:
    """The original's for a row."""
    if row["projection"] == "linear":
        return original.ImageProjModel(WIDTH, EMBED_DIM, row["tokens"])
    return original.Resampler(
        dim=row["channels"],
        depth=row["depth"],
        heads=row["heads"],
        num_queries=row["tokens"],
        embedding_dim=row["patch_width"],
        output_dim=WIDTH,
    )


def install(original: ModuleType, unet: UNet2DConditionModel) -> nn.ModuleList:
    """Put the original's attention processors into `unet`."""
    kinds = (original.AttnProcessor, original.IPAttnProcessor)
    processors = {
        f"{path}.processor": kinds[attn.is_cross_attention](
            hidden_size=attn.query_dim, cross_attention_dim=WIDTH
        )
        for path, attn in unet.named_modules()
        if f"{path}.processor" in unet.attn_processors
    }
    unet.set_attn_processor({name: processors[name] for name in unet.attn_processors})
    return nn.ModuleList(cast("dict[str, nn.Module]", unet.attn_processors).values())


@torch.no_grad()
def test_the_original_gives_the_same(
    original: ModuleType, row: dict[str, Any], adapter: Adapter, unet: UNet2DConditionModel
) -> None:
    """Its projection, and its attention processors in the UNet, to 1e-5 on the same noise."""
    weights = grouped(to_ip_adapter(adapter, unet, row["projection"]))
    module = projection(original, row)
    module.load_state_dict(weights["image_proj"])
    tokens = module(read(adapter)[:, 0])
    torch.testing.assert_close(tokens, adapter(read(adapter)), atol=1e-5, rtol=0)

    expected = ours(adapter, unet)
    layers = install(original, unet)
    layers.load_state_dict(weights["ip_adapter"])
    for layer in layers:
        if isinstance(layer, original.IPAttnProcessor):
            layer.scale, layer.num_tokens = SCALE, row["tokens"]
    torch.testing.assert_close(call(unet, more_text=tokens), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("images", [1, 2])
def test_diffusers_gives_the_same(
    images: int, row: dict[str, Any], adapter: Adapter, unet: UNet2DConditionModel
) -> None:
    weights = grouped(to_ip_adapter(adapter, unet, row["projection"]))
    expected = ours(adapter, unet, images)
    unet._load_ip_adapter_weights([weights], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor2_0):
            processor.scale = [SCALE]
    torch.testing.assert_close(call(unet, read(adapter, images)), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_checkpoint_of_the_original_is_read(
    original: ModuleType, row: dict[str, Any], unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    """Saved by the original's own modules, in halves, as the published files are."""
    torch.manual_seed(5)
    module, layers = projection(original, row), nn.ModuleList()
    for attn in unet.attn_processors:
        crossing = attn.endswith("attn2.processor")
        width = unet.get_submodule(attn.removesuffix(".processor")).query_dim
        kind = original.IPAttnProcessor if crossing else original.AttnProcessor
        layers.append(kind(hidden_size=width, cross_attention_dim=WIDTH))
    checkpoint = {
        "image_proj": module.half().state_dict(),
        "ip_adapter": layers.half().state_dict(),
    }
    torch.save(checkpoint, tmp_path / "it.bin")
    variant, adapter = from_ip_adapter(tmp_path / "it.bin", unet)
    assert variant.row() == row
    tokens = module.float()(read(adapter)[:, 0])
    torch.testing.assert_close(adapter(read(adapter)), tokens, atol=1e-5, rtol=0)
    again = grouped(to_ip_adapter(adapter, copy.deepcopy(unet), row["projection"]))
    for group, expected in checkpoint.items():
        assert again[group].keys() == expected.keys()
        assert all(torch.equal(again[group][n], w.float()) for n, w in expected.items())


class Trainee(nn.Module):
    """What the original repository trains, and saves as a whole: its class of the same parts."""

    def __init__(self, unet: nn.Module, image_proj_model: nn.Module, layers: nn.Module) -> None:
        super().__init__()
        self.unet, self.image_proj_model, self.adapter_modules = unet, image_proj_model, layers


@torch.no_grad()
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_what_the_original_trainer_saves_is_read(
    file: str,
    original: ModuleType,
    row: dict[str, Any],
    adapter: Adapter,
    unet: UNet2DConditionModel,
    tmp_path: Path,
) -> None:
    """With its UNet, as `accelerate` writes it: what two parts share stands in safetensors once."""
    weights = grouped(to_ip_adapter(adapter, unet, row["projection"]))
    module = projection(original, row)
    module.load_state_dict(weights["image_proj"])
    trained_unet = copy.deepcopy(unet)
    layers = install(original, trained_unet)
    layers.load_state_dict(weights["ip_adapter"])
    state = Trainee(trained_unet, module, layers).state_dict()
    names = {
        "plain": lambda name: name,
        "distributed": lambda name: f"module.{name}",
        "compiled": lambda name: f"_orig_mod.{name}",
        "both": lambda name: f"module._orig_mod.{name}",
        "compiled parts": lambda name: name.replace(".", "._orig_mod.", 1),
    }
    for wrapping, rename in names.items():
        path = tmp_path / wrapping / file
        path.parent.mkdir()
        renamed = OrderedDict((rename(name), weight) for name, weight in state.items())
        save(renamed, path, safe_serialization=path.suffix == ".safetensors")
        variant, read_back = from_ip_adapter(path, unet)
        assert variant.row() == row
        found = read_back.state_dict()
        assert found.keys() == adapter.state_dict().keys()
        assert all(torch.equal(found[name], w) for name, w in adapter.state_dict().items())


def test_patches_are_not_taken_for_embeddings(adapter: Adapter) -> None:
    wrong = prompts() if adapter.reads_patches else prompts()[:, None]
    with pytest.raises(UserError, match="image encoder it was trained with"):
        adapter(wrong)

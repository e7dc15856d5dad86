import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_adapters import (
    ATTENTION_WEIGHTS,
    PROJECTION_LAYERS,
    VARIANTS,
    build,
    call,
    prompts,
    toy_unet,
    trained,
)

from adapterbench.adapters.core.adapter import cross_attention_layers
from adapterbench.adapters.core.storage import (
    CONFIG,
    WEIGHTS,
    load_adapter,
    load_adapter_weights,
    load_config,
    save_adapter,
)
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError

IP_ADAPTER = parse_variant(VARIANTS["ip_adapter"])
BACKBONE = {"path": "toy", "revision": None}


@torch.no_grad()
def test_save_then_load_changes_nothing(
    variant: dict[str, Any], unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    adapter = trained(build(variant, unet))
    adapter.attach(unet)
    expected = call(unet, prompts())
    folder = tmp_path / "models" / "it"
    save_adapter(adapter, folder, parse_variant({**variant, "train": {"steps": 3}}), BACKBONE)
    adapter.detach(unet)

    torch.manual_seed(9)
    state = torch.get_rng_state()
    loaded = load_adapter(folder, unet)
    assert torch.equal(state, torch.get_rng_state())
    loaded.attach(unet)
    assert torch.equal(call(unet, prompts()), expected)
    config = load_config(folder)
    assert (config.variant, config.backbone) == (variant, BACKBONE)

    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_adapter(loaded, folder, parse_variant(variant), BACKBONE)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert first.keys() == {WEIGHTS, CONFIG}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_holds_exactly_the_trained_weights(
    name: str, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    variant = VARIANTS[name]
    adapter = build(variant, unet).to(torch.bfloat16)
    save_adapter(adapter, tmp_path / "it", parse_variant(variant), BACKBONE)
    keys = {
        f"projection.{layer}.{part}"
        for layer in PROJECTION_LAYERS[name]
        for part in ("weight", "bias")
    }
    for path in cross_attention_layers(unet):
        slashed = path.replace(".", "/")
        keys |= {f"branches.{slashed}.{rest}" for rest in ATTENTION_WEIGHTS[variant["attention"]]}
    with safe_open(tmp_path / "it" / WEIGHTS, "pt") as file:
        assert set(file.keys()) == keys
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float32}
    size = (tmp_path / "it" / WEIGHTS).stat().st_size
    assert 0 <= size - 4 * adapter.count < 16_384


@pytest.fixture
def saved(unet: UNet2DConditionModel, tmp_path: Path) -> Path:
    save_adapter(build(VARIANTS["ip_adapter"], unet), tmp_path / "it", IP_ADAPTER, BACKBONE)
    return tmp_path / "it"


def test_loading_takes_the_dtype_of_the_unet(saved: Path, unet: UNet2DConditionModel) -> None:
    half = unet.to(torch.float16)  # type: ignore[arg-type]  # diffusers' types lose self
    adapter = load_adapter(saved, half)
    assert {weight.dtype for weight in adapter.trainable_parameters()} == {torch.float16}
    fresh = build(VARIANTS["ip_adapter"], unet)
    load_adapter_weights(fresh, saved)  # to go on training
    assert {weight.dtype for weight in fresh.trainable_parameters()} == {torch.float32}


def test_a_failed_save_keeps_the_last_adapter(saved: Path, unet: UNet2DConditionModel) -> None:
    before = (saved / WEIGHTS).read_bytes()
    with pytest.raises(TypeError):
        save_adapter(build(VARIANTS["ip_adapter"], unet), saved, IP_ADAPTER, {"not json": object()})
    assert (saved / WEIGHTS).read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def refused(folder: Path, unet: UNet2DConditionModel, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_adapter(folder, unet)
    assert "\n" not in str(error.value)


def test_missing_or_corrupt_files_are_explained(saved: Path, unet: UNet2DConditionModel) -> None:
    weights = saved / WEIGHTS
    refused(saved.parent / "nothing", unet, "adapter_config.json is missing")
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"<html>not found</html>" * 9):
        weights.write_bytes(damaged)
        refused(saved, unet, r"adapter.safetensors is corrupt")
    weights.unlink()
    refused(saved, unet, r"adapter.safetensors is missing")
    (saved / CONFIG).write_text("{")
    refused(saved, unet, "Invalid JSON")
    (saved / CONFIG).write_text('{"variant": {}, "embed_dim": "wide", "backbone": {}, "x": 1}')
    refused(saved, unet, r"embed_dim = 'wide': Input should be .* integer; x is not a parameter")
    (saved / CONFIG).write_text("[]")
    refused(saved, unet, r"content = \[\]: Input should be an object")


def test_a_flipped_bit_of_a_weight_is_found(saved: Path, unet: UNet2DConditionModel) -> None:
    """Which changes a number a little, and no structure."""
    weights = saved / WEIGHTS
    whole = weights.read_bytes()
    for place in (-1, -1000, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        weights.write_bytes(damaged)
        refused(saved, unet, r"adapter.safetensors is corrupt .its SHA-256 is")
    weights.write_bytes(whole)
    load_adapter(saved, unet)


def test_an_adapter_without_a_digest_is_taken(saved: Path, unet: UNet2DConditionModel) -> None:
    edit(saved / CONFIG, sha256=None)
    load_adapter(saved, unet)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weight: weight * math.nan, "is not finite"),
        (lambda weight: weight.index_fill(0, torch.tensor([3]), -math.inf), "is not finite"),
        (lambda weight: weight.double() * 1e300, "is not finite"),
        (lambda weight: (100 * weight).int(), r"has dtype torch\.int32, not a float type"),
        (lambda weight: weight.bool(), r"has dtype torch\.bool, not a float type"),
        (lambda weight: weight.to(torch.complex64), r"has dtype torch\.complex64, not a float"),
    ],
)
def test_weights_that_are_no_finite_floats(
    spoil: Callable[[torch.Tensor], torch.Tensor],
    message: str,
    saved: Path,
    unet: UNet2DConditionModel,
) -> None:
    weights = load_file(saved / WEIGHTS)
    name = sorted(weights)[-1]
    save_file({**weights, name: spoil(weights[name])}, saved / WEIGHTS)
    edit(saved / CONFIG, sha256=None)
    refused(saved, unet, f"{name} {message}")


def test_weights_of_another_precision_are_taken(saved: Path, unet: UNet2DConditionModel) -> None:
    save_file({k: w.half() for k, w in load_file(saved / WEIGHTS).items()}, saved / WEIGHTS)
    edit(saved / CONFIG, sha256=None)
    load_adapter(saved, unet)


def test_what_diverged_is_not_saved(saved: Path, unet: UNet2DConditionModel) -> None:
    before = (saved / WEIGHTS).read_bytes()
    adapter = build(VARIANTS["ip_adapter"], unet)
    with torch.no_grad():
        adapter.trainable_parameters()[0][0] = math.nan
    with pytest.raises(UserError, match=r"was not written: .* is not finite"):
        save_adapter(adapter, saved, IP_ADAPTER, BACKBONE)
    assert (saved / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 2**31 - 1},
        {"variant": {**VARIANTS["ip_adapter"], "tokens": 10**9}},
        {"variant": {**VARIANTS["ip_adapter"], "tokens": 10**30}},
        {"variant": {**VARIANTS["ip_adapter_mlp"], "hidden_layers": 10**9}},
        {"variant": {**VARIANTS["ip_adapter_mlp"], "tokens": 65_536, "expansion": 65_536}},
        {"variant": {**VARIANTS["ip_adapter_lora"], "rank": 10**9}},
        {"variant": {**VARIANTS["ip_adapter"], "projection": ["linear"]}},
        {"variant": {"projection": {}, "attention": None}},
        {"embed_dim": 10**400},
        {"sha256": "../../etc/passwd"},
    ],
)
def test_numbers_that_no_machine_holds(
    change: dict[str, Any], saved: Path, unet: UNet2DConditionModel
) -> None:
    edit(saved / CONFIG, **change)
    refused(saved, unet, re.escape(str(saved / CONFIG)))


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one away."""
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: v for name, v in facts.items() if v is not None}))


def test_shapes_expected_and_received_are_named(saved: Path, unet: UNet2DConditionModel) -> None:
    refused(saved, toy_unet(cross_attention_dim=48), r"expected \(32, 48\), received \(32, 32\)")
    refused(saved, toy_unet(layers_per_block=2), r"expected \(.*\), received none")
    config = json.loads((saved / CONFIG).read_text())
    config["variant"] = VARIANTS["uni_controlnet_global"]
    (saved / CONFIG).write_text(json.dumps(config))
    refused(saved, unet, r"expected none, received \(32, 32\)")

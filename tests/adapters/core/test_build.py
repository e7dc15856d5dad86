import ast
import json
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from toy_adapters import EMBED_DIM, MLP, VARIANTS, build

from adapterbench.adapters.core.build import KINDS, build_adapter, count_parameters, parse_variant
from adapterbench.core import registry
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
    assert count_parameters({name: variant}, sd15(), embed_dim=512) == {name: count}


def test_the_count_is_that_of_the_built_adapter(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    counts = count_parameters({"it": variant, "again": variant}, unet.config, EMBED_DIM)
    assert counts == dict.fromkeys(("it", "again"), build(variant, unet).count)


def test_train_overrides_are_not_the_adapters_business(unet: UNet2DConditionModel) -> None:
    row = {**VARIANTS["ip_adapter"], "train": {"learning_rate": 1e-5}}
    assert build(row, unet).count == build(VARIANTS["ip_adapter"], unet).count


def test_widths_come_from_the_layers() -> None:
    config = dict(sd15(), cross_attention_dim=[64, 64, 128, 64])
    with pytest.raises(UserError, match=r"one token width, this UNet has \[64, 128\]"):
        count_parameters(VARIANTS, config, 512)
    blocks = {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4}
    config = dict(sd15(), **blocks, mid_block_type=None)
    with pytest.raises(UserError, match="this UNet has none"):
        count_parameters(VARIANTS, config, 512)


LINEAR = {"projection": "linear", "attention": "decoupled", "tokens": 4}


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({**LINEAR, "rank": 4}, r"variant.rank is not a parameter .*known: attention.* tokens"),
        ({**LINEAR, 7: 4}, r"variant.7 is not a parameter"),
        ({**LINEAR, "hidden_layers": 2}, r"hidden_layers is not .*projection: linear"),
        ({**LINEAR, "tokens": "four"}, r"variant.tokens = 'four'.*integer"),
        ({**LINEAR, "tokens": 0}, r"variant.tokens = 0.*greater"),
        ({**LINEAR, "projection": "mlp"}, r"hidden_layers is missing; .*expansion is missing"),
        ({**LINEAR, "attention": "lora"}, r"variant.rank is missing"),
        ({**LINEAR, "attention": "lora", "rank": 4, "alpha": -1}, r"alpha = -1"),
        ({"attention": "lora"}, r"variant.projection is missing .*feedforward, linear, mlp"),
        ({"projection": "linear"}, r"variant.attention is missing .*append, decoupled, lora"),
        ({**LINEAR, "projection": "perceiver"}, r"'perceiver' .*feedforward, linear, mlp"),
        ({**LINEAR, "attention": "../base"}, r"'../base' .*append, decoupled, lora"),
        ({**LINEAR, "attention": "__init__"}, r"unknown attention '__init__'"),
        ({**LINEAR, "attention": ["lora"]}, r"unknown attention \['lora'\]"),
        ("ip_adapter", r"a mapping of fields, not 'ip_adapter'"),
    ],
)
def test_a_bad_variant_is_refused_in_one_line(
    variant: Any, message: str, unet: UNet2DConditionModel
) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_adapter(variant, unet, EMBED_DIM)
    assert "\n" not in str(error.value)


def test_a_field_goes_to_the_part_that_declares_it() -> None:
    parts = parse_variant({**MLP, "attention": "lora", "rank": 2})
    assert parts["projection"].params.model_dump() == {
        "tokens": 4,
        "hidden_layers": 2,
        "expansion": 4,
    }
    assert parts["attention"].params.model_dump() == {"rank": 2, "alpha": None}


def test_only_the_variants_own_files_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that editing the file of another variant re-runs nothing."""
    shared = (files("adapterbench") / "adapters" / "core").iterdir()
    for path in (p for p in shared if p.name.endswith(".py")):
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            assert not module.startswith(tuple(KINDS.values())), f"{path.name} imports {module}"
    asked: list[str] = []
    monkeypatch.setattr(registry, "import_module", lambda m: asked.append(m) or import_module(m))
    parse_variant(LINEAR)
    assert asked == [f"{KINDS['projection']}.linear", f"{KINDS['attention']}.decoupled"]

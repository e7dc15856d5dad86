import ast
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from toy_adapters import MLP, PLUS, VARIANTS

from adapterbench.adapters.attention import lora
from adapterbench.adapters.core.variant import (
    KINDS,
    ReadsEmbedding,
    ReadsPatches,
    load_variant,
    parse_variant,
)
from adapterbench.adapters.projections import mlp
from adapterbench.core import registry
from adapterbench.core.config import ImageEncoderParams
from adapterbench.core.errors import UserError

LINEAR = {"projection": "linear", "attention": "decoupled", "tokens": 4}
ENCODER = {"image_encoder": "ViT-H-14", "pretrained": "p"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**LINEAR, "rank": 4}, r"it.rank is not a parameter .*known: attention.* tokens"),
        ({**LINEAR, "projections": "mlp"}, r"it.projections is not a parameter"),
        ({**LINEAR, "tokens": "four"}, r"it.tokens = 'four'.*integer"),
        ({**LINEAR, "tokens": 0}, r"it.tokens = 0.*greater"),
        ({**LINEAR, "tokens": 2.5}, r"it.tokens = 2.5.*integer"),
        ({**LINEAR, "tokens": None}, r"it.tokens = None.*integer"),
        ({**LINEAR, "tokens": 10**9}, r"it.tokens = 1000000000.*less"),
        ({**LINEAR, "projection": "mlp"}, r"hidden_layers is missing; .*expansion is missing"),
        ({**LINEAR, "attention": "lora"}, r"it.rank is missing"),
        ({**LINEAR, "attention": "lora", "rank": -1}, r"it.rank = -1"),
        ({**LINEAR, "attention": "lora", "rank": 4, "alpha": -1}, r"it.alpha = -1"),
        ({**LINEAR, "attention": "lora", "tokens": 0, "rank": 0}, r"it.tokens = 0.*it.rank = 0"),
        ({**LINEAR, "attention": "dora"}, r"it.rank is missing"),
        ({**LINEAR, "attention": "dora", "rank": 4, "block_size": 8}, r"it.block_size is not a"),
        ({**LINEAR, "attention": "dora", "rank": 4, "alpha": 0}, r"it.alpha = 0"),
        ({**LINEAR, "attention": "oft"}, r"it.block_size is missing"),
        ({**LINEAR, "attention": "oft", "block_size": 1}, r"it.block_size = 1.*greater"),
        ({**LINEAR, "attention": "oft", "block_size": 8, "rank": 4}, r"it.rank is not a parameter"),
        ({"attention": "lora"}, r"it.projection is missing .*feedforward, .*linear, .*mlp"),
        ({"projection": "linear"}, r"it.attention is missing .*append, .*decoupled, .*lora"),
        ({**LINEAR, "projection": "perceiver"}, r"it.projection: .*'perceiver' .*linear, .*mlp"),
        ({**LINEAR, "attention": "../base"}, r"it.attention: .*'../base' .*append, .*decoupled"),
        ({**LINEAR, "attention": "__init__"}, r"unknown attention '__init__'"),
        ({**LINEAR, "attention": ["lora"]}, r"unknown attention \['lora'\]"),
        ({**LINEAR, "attention": None}, r"unknown attention None"),
        ({**LINEAR, "projection": "resampler"}, r"patch_width is missing; .*heads is missing"),
        ({**LINEAR, "pretrained": 1}, r"it.pretrained = 1.*string"),
        ({**LINEAR, "train": 20}, r"it.train = 20.*dictionary"),
        (LINEAR | {7: 4}, r"it.7"),
        ("ip_adapter", r"it must be a mapping of fields, not 'ip_adapter'"),
    ],
)
def test_a_bad_row_is_refused_in_one_line(row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_variant(row, "it")
    assert str(error.value).startswith("params.yaml: it")
    assert "\n" not in str(error.value)


def test_a_variant_has_the_fields_of_both_parts() -> None:
    row = {**MLP, "attention": "lora", "rank": 2}
    variant = parse_variant(row)
    assert isinstance(variant, mlp.Params)
    assert isinstance(variant, lora.Params)
    assert (variant.tokens, variant.expansion, variant.rank, variant.alpha) == (4, 4, 2, None)
    assert variant == parse_variant(dict(row))
    assert variant != parse_variant({**row, "rank": 3})
    assert not hasattr(parse_variant(LINEAR), "rank")


def test_a_row_comes_back(variant: dict[str, Any]) -> None:
    row = {**variant, **ENCODER, "train": {"steps": 3}}
    parsed = parse_variant(row)
    assert (parsed.as_given(), parsed.row()) == (row, variant)
    assert list(parsed.row())[:3] == ["projection", "attention", "tokens"]  # as people write it
    assert parsed.encoder == ImageEncoderParams(**ENCODER)
    assert parse_variant(variant).encoder == ImageEncoderParams()


@pytest.mark.parametrize("projection", registry.keys(KINDS["projection"]))
def test_every_projection_declares_what_it_reads(projection: str) -> None:
    params = registry.load(KINDS["projection"], projection).Params
    assert issubclass(params, ReadsPatches) != issubclass(params, ReadsEmbedding)


def test_the_resampler_reads_patches() -> None:
    assert parse_variant(PLUS).reads_patches
    assert not any(parse_variant(row).reads_patches for row in VARIANTS.values())


def test_a_row_of_the_parameter_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"variants": {"mine": LINEAR, "bad": {**LINEAR, "rank": 1}}}))
    assert load_variant("mine", path).row() == LINEAR
    with pytest.raises(UserError, match=r"^params.yaml: variants\.bad\.rank is not a parameter"):
        load_variant("bad", path)
    with pytest.raises(UserError, match="unknown variant 'other'"):
        load_variant("other", path)


def test_only_the_variants_own_files_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that editing the file of another variant re-runs nothing."""
    shared = (files("adapterbench") / "adapters" / "core").iterdir()
    for path in (p for p in shared if p.name.endswith(".py")):
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            assert not module.startswith(tuple(KINDS.values())), f"{path.name} imports {module}"
    asked: list[str] = []

    def noted(name: str) -> ModuleType:
        asked.append(name)
        return import_module(name)

    monkeypatch.setattr(registry, "import_module", noted)
    parse_variant(LINEAR)
    assert asked == [f"{KINDS['projection']}.linear", f"{KINDS['attention']}.decoupled"]

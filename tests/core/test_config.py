"""Parameters that are wrong are refused in one line that says what to mend."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapterbench.core.config import (
    CompareParams,
    TrainParams,
    load_params,
    load_train,
    load_variant,
)
from adapterbench.core.errors import UserError

PARAMS = Path(__file__).parents[2] / "params.yaml"
TRAIN: dict[str, Any] = yaml.safe_load(PARAMS.read_text())["train"]
COMPARE = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 0}


def written(path: Path, **sections: Any) -> Path:
    file = path / "params.yaml"
    file.write_text(yaml.safe_dump({"train": TRAIN, "compare": COMPARE, **sections}))
    return file


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_section_is_read_with_its_types(tmp_path: Path) -> None:
    params = load_params(CompareParams, "compare", written(tmp_path))
    assert params == CompareParams(bootstrap_samples=100, confidence=0.95, seed=0)


def test_a_section_is_frozen(tmp_path: Path) -> None:
    params = load_params(CompareParams, "compare", written(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"sede": 1}, ["compare.sede", "is not a parameter", "seed"]),
        ({"seed": "zero"}, ["compare.seed = 'zero'", "integer"]),
        ({"confidence": 1.5}, ["compare.confidence = 1.5", "less than 1"]),
        ({"confidence": math.nan}, ["compare.confidence = nan", "finite"]),
        ({"seed": -1}, ["compare.seed = -1", "greater than or equal to 0"]),
        ({"bootstrap_samples": 0}, ["compare.bootstrap_samples = 0", "greater than or equal to 1"]),
        ({"sede": 1, "seed": "zero"}, ["compare.sede", "compare.seed"]),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, change: dict[str, Any], parts: list[str]) -> None:
    file = written(tmp_path, compare={**COMPARE, **change})
    message = refusal(load_params, CompareParams, "compare", file)
    assert all(part in message for part in parts), message


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, compare={"seed": 0, "confidence": 0.9})
    message = refusal(load_params, CompareParams, "compare", file)
    assert "compare.bootstrap_samples is missing" in message


@pytest.mark.parametrize("value", [None, 5, [1]])
def test_a_section_that_is_no_mapping(tmp_path: Path, value: Any) -> None:
    file = written(tmp_path, compare=value)
    assert "compare" in refusal(load_params, CompareParams, "compare", file)


def test_a_missing_section_lists_those_that_exist(tmp_path: Path) -> None:
    message = refusal(load_params, CompareParams, "score", written(tmp_path))
    assert "'score'" in message
    assert "compare, train" in message


def test_a_missing_file(tmp_path: Path) -> None:
    message = refusal(load_params, CompareParams, "compare", tmp_path / "params.yaml")
    assert "is missing" in message


@pytest.mark.parametrize("text", ["a: [1, 2\nb: }", "- a\n- b\n", "", "just words"])
def test_a_file_that_is_no_yaml_mapping(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    assert str(file) in refusal(load_params, CompareParams, "compare", file)


def test_a_variant_is_plain_data(tmp_path: Path) -> None:
    file = written(tmp_path, variants={"a": {"projection": "mlp"}})
    assert load_variant("a", file) == {"projection": "mlp"}


def test_an_unknown_variant_lists_those_that_exist(tmp_path: Path) -> None:
    file = written(tmp_path, variants={"a": {}, "b": {}})
    message = refusal(load_variant, "c", file)
    assert "'c'" in message
    assert "a, b" in message


@pytest.mark.parametrize("variants", [None, ["a"], {"a": None}, {"a": "mlp"}])
def test_variants_of_the_wrong_shape(tmp_path: Path, variants: Any) -> None:
    assert "variants" in refusal(load_variant, "a", written(tmp_path, variants=variants))


def test_a_variant_overrides_single_fields_of_train(tmp_path: Path) -> None:
    file = written(tmp_path, variants={"a": {"train": {"steps": 7}}, "b": {}})
    assert load_train("b", file) == TrainParams(**TRAIN)
    assert load_train("a", file) == TrainParams(**{**TRAIN, "steps": 7})


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"step": 20}, "variants.a.train.step is not a parameter"),
        ({"steps": -1}, "variants.a.train.steps = -1"),
        ({"learning_rate": math.inf}, "variants.a.train.learning_rate = inf"),
        (20, "variants.a.train must be a mapping"),
        (None, "variants.a.train must be a mapping"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, overrides: Any, part: str) -> None:
    file = written(tmp_path, variants={"a": {"train": overrides}})
    assert part in refusal(load_train, "a", file)


def test_overrides_need_the_train_section(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"variants": {"a": {}}}))
    assert "no section 'train'" in refusal(load_train, "a", file)

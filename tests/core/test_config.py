"""Parameters that are wrong are refused in one line that says what to mend."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from adapterbench.core.config import (
    CompareParams,
    Section,
    TrainParams,
    load_params,
    load_row,
    load_rows,
    load_train,
    read_params,
)
from adapterbench.core.errors import UserError
from adapterbench.report.methods import WITHOUT_ADAPTER

PARAMS = Path(__file__).parents[2] / "params.yaml"
TRAIN: dict[str, Any] = yaml.safe_load(PARAMS.read_text())["train"]
COMPARE = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 0, "labels": {}}


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
    assert params == CompareParams(bootstrap_samples=100, confidence=0.95, seed=0, labels={})


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


LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"train: {seed: 0}\nname: \xe9\n", "is not UTF-8"),
        ("train: {}".encode("utf-16"), "is not UTF-8"),
        (b"train: {seed: 0, 1: 2, yes: no}", "key 1 of train"),
        (b"train: {}\n5: {}\n", "key 5 of the file"),
        (b"train: {}\n? [1, 2]\n: 3", "key (1, 2) of the file"),
        (b"train: {}\nnull: 3", "key None of the file"),
        (b"train: {seed: 2026-01-31}", "seed = datetime.date(2026, 1, 31) is a date"),
        (b"train: {seed: 2026-13-41}", "not valid YAML"),
        (b"train: {seed: !!binary aGFsbG8=}", "is a bytes"),
        (b"train: {seed: !!set {a, b}}", "is a set"),
        (b"train: {seed: !!timestamp never}", "not valid YAML"),
        (b"train: {seed: !!bool perhaps}", "not valid YAML"),
        (b"train: {seed: !!int ''}", "not valid YAML"),
        (b"train: {seed: !!python/object/apply:os.getcwd []}", "not valid YAML"),
        (b"train: {seed: " + b"9" * 10_000 + b"}", "not valid YAML"),
        (b"train: " + b"[" * 100_000, "not valid YAML"),
        (b"train: &a [*a]", "more than 100,000 values"),
        (LAUGHS.encode(), "more than 100,000 values"),
    ],
)
def test_a_file_of_other_things_than_parameters(tmp_path: Path, text: bytes, part: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(text)
    message = refusal(load_params, TrainParams, "train", file)
    assert part in message
    assert len(message) < 500 + len(str(file))


@pytest.mark.parametrize(
    "value", ["010", "0o10", "1_000", "1:30", "on", "1e1", "0x10", "-0", "' 7 '"]
)
def test_a_value_is_read_as_dvc_reads_it(value: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"train:\n  seed: {value}\n")
    assert read_params(file) == load_yaml(str(file))


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "train: {}\ntrain: {seed: 1}\n"])
def test_of_two_equal_keys_none_counts(text: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    assert "line 2: found duplicate key" in refusal(read_params, file)


def test_an_integer_that_cannot_be_shown(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"compare: {{bootstrap_samples: 9, confidence: 0.9, seed: 0x{'f' * 5000}}}")
    message = refusal(load_params, CompareParams, "compare", file)
    assert "compare.seed = a value too large to show: Input should be less than" in message


def test_a_folder_is_no_parameter_file(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(load_params, TrainParams, "train", tmp_path)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (TrainParams, "seed", 10**30),
        (TrainParams, "seed", -1),
        (TrainParams, "batch_size", 10**12),
        (TrainParams, "steps", 10**30),
        (TrainParams, "warmup_steps", 10**30),
        (CompareParams, "seed", 2**63),
        (CompareParams, "bootstrap_samples", 10**9),
    ],
)
def test_a_number_that_nothing_holds(
    section: type[Section], field: str, value: int, tmp_path: Path
) -> None:
    name = "train" if section is TrainParams else "compare"
    file = written(tmp_path, **{name: {**(TRAIN if name == "train" else COMPARE), field: value}})
    message = refusal(load_params, section, name, file)
    assert f"{name}.{field} = {value}: Input should be" in message


def test_a_bad_value_is_shown_in_part(tmp_path: Path) -> None:
    message = refusal(load_params, TrainParams, "train", written(tmp_path, train="x" * 10_000))
    assert "train = 'xxx" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "a.b", "a/b", "../../evil", "a@b", "a$b", "a[b]", "", "a\n", "16", "-a", "é"),
        *("x" * 65, "1e3", "1_0E9", "0x1f", "0o17", "0b11"),
    ],
)
@pytest.mark.parametrize("reader", [load_rows, partial(load_row, "fine")])
def test_a_name_that_dvc_cannot_run(name: str, reader: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps({"variants": {"fine": {}, name: {}}}))  # YAML with names in quotes
    assert "cannot be the name of a variant" in refusal(lambda: reader(path=file))


@pytest.mark.parametrize("name", WITHOUT_ADAPTER)
def test_a_name_of_another_row(name: str, tmp_path: Path) -> None:
    file = written(tmp_path, variants={name: {}})
    assert f"'{name}' is the name of a baseline" in refusal(load_rows, file)


@pytest.mark.parametrize("name", ["ip-adapter-16", "_mine", "16_tokens", "X", "1e", "on"])
def test_a_name_that_dvc_runs(name: str, tmp_path: Path) -> None:
    rows = {name: {"projection": "mlp"}}
    assert load_rows(written(tmp_path, variants=rows)) == rows


def test_a_row_is_plain_data(tmp_path: Path) -> None:
    file = written(tmp_path, variants={"a": {"projection": "mlp"}})
    assert load_row("a", file) == {"projection": "mlp"}


def test_an_unknown_variant_lists_those_that_exist(tmp_path: Path) -> None:
    file = written(tmp_path, variants={"a": {}, "b": {}})
    message = refusal(load_row, "c", file)
    assert "'c'" in message
    assert "a, b" in message


@pytest.mark.parametrize("variants", [None, ["a"], {"a": None}, {"a": "mlp"}])
def test_variants_of_the_wrong_shape(tmp_path: Path, variants: Any) -> None:
    assert "variants" in refusal(load_row, "a", written(tmp_path, variants=variants))


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

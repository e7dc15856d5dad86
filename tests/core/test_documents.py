"""JSON of a known structure: what is read, and what is refused in one line."""

import json
from pathlib import Path

import pytest

from adapterbench.core.documents import (
    Document,
    FileName,
    Sha256,
    parse_document,
    read_document,
    unique_keys,
)
from adapterbench.core.errors import InputError, UserError


class Shard(Document):
    name: FileName
    sha256: Sha256 | None = None
    samples: int
    weight: float = 1.0


def test_fields_that_are_not_declared_are_left_alone() -> None:
    shard = parse_document(Shard, b'{"name": "train-00000.tar", "samples": 3, "later": {}}')
    assert shard == Shard(name="train-00000.tar", samples=3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "content: Invalid JSON"),
        ("[]", "content = []: Input should be an object"),
        ('{"samples": 3}', "name is missing"),
        ('{"name": "a", "samples": "3"}', "samples = '3': Input should be a valid integer"),
        ('{"name": "../a", "samples": 3}', "name = '../a': String should match"),
        ('{"name": "", "samples": 3}', "name = '': String should match"),
        ('{"name": "a", "samples": 3, "sha256": "ABC"}', "sha256 = 'ABC': String should match"),
        ('{"name": "a", "samples": 3, "weight": NaN}', "weight = nan: Input should be a finite"),
    ],
)
def test_another_structure_is_refused_by_its_place(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_document(Shard, text.encode())
    assert problem in str(caught.value)


def test_an_error_names_three_places_and_counts_the_others() -> None:
    rows = [{"name": "a"}] * 5
    with pytest.raises(ValueError, match=r"; and 2 more$") as caught:
        parse_document(list[Shard], json.dumps(rows).encode())
    assert str(caught.value).count("is missing") == 3


def test_who_mends_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shard.json"
    with pytest.raises(InputError, match=r"shard.json is missing: make it again"):
        read_document(Shard, path, "a shard")
    with pytest.raises(UserError, match=r"shard.json is missing: write one"):
        read_document(Shard, path, "a shard", "write one")
    path.mkdir()
    with pytest.raises(UserError, match=r"shard.json cannot be read \(Is a directory\)"):
        read_document(Shard, path, "a shard")
    path.rmdir()
    path.write_text("{}")
    with pytest.raises(UserError, match=r"is not a shard \(name is missing; samples is missing\)"):
        read_document(Shard, path, "a shard")
    path.write_text('{"name": "a", "samples": 1}')
    assert read_document(Shard, path, "a shard").samples == 1


def test_a_name_that_stands_twice_is_refused() -> None:
    assert json.loads('{"a": 1, "b": {"a": 2}}', object_pairs_hook=unique_keys) == {
        "a": 1,
        "b": {"a": 2},
    }
    with pytest.raises(ValueError, match="it has 'a' twice"):
        json.loads('{"b": {"a": 1, "a": 1}}', object_pairs_hook=unique_keys)

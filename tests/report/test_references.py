"""Reference images of the grids: the choice of items, and missing or damaged shards."""

from pathlib import Path

import pytest

from adapterbench.core.errors import UserError
from adapterbench.formats.generated import read_names
from adapterbench.report.references import choose, read_references


def test_items_are_spread_and_the_same_each_time() -> None:
    keys = [f"{n:02d}" for n in range(11)]
    assert choose(keys, 3) == choose(set(keys), 3) == ["00", "05", "10"]
    assert choose(["b", "a"], 6) == ["a", "b"]


def test_references_follow_the_keys(project: Path) -> None:
    keys = sorted({key for key, _ in read_names(project / "samples/ip_adapter/image.tar")})
    assert len(keys) == 40
    references = read_references(project / "data/shards", [keys[30], keys[1]])
    assert [keys[30] in references[0].caption, keys[1] in references[1].caption] == [True, True]


def test_what_is_missing_is_named(project: Path) -> None:
    with pytest.raises(UserError, match="has no validation item nothing"):
        read_references(project / "data/shards", ["nothing"])

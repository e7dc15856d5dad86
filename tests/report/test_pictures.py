"""Pictures for the grids: which items, and what is missing or damaged."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.report.pictures import choose, read_references, read_samples, sampled_keys


def test_items_are_spread_and_the_same_each_time() -> None:
    keys = [f"{n:02d}" for n in range(11)]
    assert choose(keys, 3) == choose(set(keys), 3) == ["00", "05", "10"]
    assert choose(["b", "a"], 6) == ["a", "b"]


def test_samples_and_references_follow_the_keys(project: Path) -> None:
    tar = project / "samples/ip_adapter/image.tar"
    keys = sorted(sampled_keys(tar))
    assert len(keys) == 40
    with tarfile.open(tar) as members:
        file = members.extractfile(f"{keys[7]}.0.png")
        assert file
        wanted = Image.open(io.BytesIO(file.read())).tobytes()
    assert read_samples(tar, [keys[7], keys[2]])[0].tobytes() == wanted
    references = read_references(project / "data/shards", [keys[30], keys[1]])
    assert [keys[30] in references[0].caption, keys[1] in references[1].caption] == [True, True]


def test_what_is_missing_is_named(project: Path) -> None:
    tar = project / "samples/ip_adapter/image.tar"
    with pytest.raises(UserError, match=r"has no picture nothing\.0\.png.*sample@ip_adapter"):
        read_samples(tar, ["nothing"])
    with pytest.raises(UserError, match="has no validation item nothing"):
        read_references(project / "data/shards", ["nothing"])
    tar.write_bytes(b"not a tar")
    with pytest.raises(UserError, match=r"image\.tar is damaged"):
        read_samples(tar, ["x"])
    tar.unlink()
    with pytest.raises(UserError, match=r"image\.tar is missing"):
        sampled_keys(tar)

"""Shards compressed anew hold the same images and texts, in fewer bytes."""

from pathlib import Path

import pytest
from toy_backbone import Toy

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST
from adapterbench.formats.shards import read_manifest, read_split
from adapterbench.pretraining.archive import archive


def test_an_archive_reads_like_the_shards(toy: Toy, tmp_path: Path) -> None:
    archive(toy.shards, tmp_path / "archive")
    for split in read_manifest(toy.shards).splits:
        before, after = (list(read_split(at, split)) for at in (toy.shards, tmp_path / "archive"))
        assert [(s.key, s.captions, s.meta) for s in before] == [
            (s.key, s.captions, s.meta) for s in after
        ]
        assert all(
            a.image.tobytes() == b.image.tobytes() for a, b in zip(before, after, strict=True)
        )


def test_a_damaged_shard_leaves_no_archive(toy: Toy, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for file in toy.shards.iterdir():
        (shards / file.name).write_bytes(file.read_bytes())
    damaged = next(path for path in shards.iterdir() if path.name != MANIFEST)
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    with pytest.raises(UserError, match=damaged.name):
        archive(shards, tmp_path / "archive")
    assert not (tmp_path / "archive").exists()

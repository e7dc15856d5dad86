"""Shards that are half as large: the same images as lossless WebP instead of PNG."""

import json
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from adapterbench.core.files import MANIFEST, publish, write_json
from adapterbench.formats.image import to_webp
from adapterbench.formats.shards import (
    Packed,
    Shard,
    find_shards,
    read_manifest,
    read_shard,
    write_shard,
)


def archive(shards: Path, out: Path) -> None:
    """Write the folder `out`, which is read like `shards` and gives the same pixels and texts.

    Raises:
        UserError: the shards are missing or damaged.
    """
    splits = read_manifest(shards).splits
    manifest = json.loads((shards / MANIFEST).read_text())
    with publish(out) as folder:
        folder.mkdir()
        for split in splits:
            manifest["splits"][split]["shards"] = [
                write_shard(folder / shard.path.name, packed(shard))
                for shard in tqdm(find_shards(shards, split), desc=split, unit="shard")
            ]
        write_json(folder / MANIFEST, manifest)


def packed(shard: Shard) -> Iterator[Packed]:
    """The samples of a shard, compressed anew."""
    for sample in read_shard(shard):
        yield Packed(sample.key, "webp", to_webp(sample.image), sample.captions, sample.meta)

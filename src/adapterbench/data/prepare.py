"""From a source's raw pictures to train and validation shards, split by concept."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapterbench.config import DataParams
from adapterbench.data.image import BadImageError, decode, is_blank, square
from adapterbench.data.sample import RawSample
from adapterbench.data.shards import Sample, write_shard
from adapterbench.errors import UserError
from adapterbench.files import MANIFEST, publish, write_json
from adapterbench.registry import load

log = logging.getLogger(__name__)


@dataclass
class Drops:
    """What was left out, and why."""

    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, key: str, cause: str) -> None:
        """Count one dropped sample."""
        self.rows.append({"key": key, "cause": cause})

    def by_cause(self) -> dict[str, int]:
        """Number of drops for each cause."""
        return dict(sorted(Counter(row["cause"] for row in self.rows).items()))


def prepare(params: DataParams, raw: Path, out: Path) -> dict[str, Any]:
    """Write `out/{train,validation}-00000.tar ...` and `out/manifest.json`; return the manifest.

    The bytes depend on the raw files and `params` alone.

    Raises:
        UserError: the raw files are damaged, or too few concepts are left to split.
    """
    source = load("adapterbench.data.sources", params.source)
    drops = Drops()
    samples = list(clean(source.read(raw, params), params, drops))
    held_out = validation_concepts({s.meta["concept"] for s in samples}, params)
    splits: dict[str, list[Sample]] = {"train": [], "validation": []}
    for sample in sorted(samples, key=lambda s: rank(s.key, params.seed)):
        splits["validation" if sample.meta["concept"] in held_out else "train"].append(sample)
    with publish(out) as folder:
        folder.mkdir()
        manifest = {
            "attribution": source.ATTRIBUTION,
            "dropped": drops.by_cause(),
            "drops": drops.rows,
            "resolution": params.resolution,
            "splits": {name: pack(folder, name, rows, params) for name, rows in splits.items()},
        }
        write_json(folder / MANIFEST, manifest)
    log.info("dropped: %s", manifest["dropped"] or "nothing")
    return manifest


def clean(raw: Iterable[RawSample], params: DataParams, drops: Drops) -> Iterator[Sample]:
    """Decode, resize and keep the usable samples; count the others in `drops`."""
    seen: set[str] = set()
    for sample in tqdm(raw, desc="prepare", unit="img", mininterval=1):
        if not sample.image:
            drops.add(sample.key, "no picture in the set")
            continue
        if not any(caption.strip() for caption in sample.captions):
            drops.add(sample.key, "no caption")
            continue
        if (digest := sha256(sample.image).hexdigest()) in seen:
            drops.add(sample.key, "duplicate picture")
            continue
        seen.add(digest)
        try:
            image = square(decode(sample.image), params.resolution)
        except BadImageError as error:
            drops.add(sample.key, str(error))
            continue
        if is_blank(image):
            drops.add(sample.key, "blank picture")
            continue
        meta = {**sample.meta, "concept": sample.concept}
        yield Sample(key=sample.key, image=image, captions=sample.captions, meta=meta)


def validation_concepts(concepts: set[str], params: DataParams) -> set[str]:
    """The concepts kept out of training, drawn by hash.

    Raises:
        UserError: there are not more concepts than `validation_concepts`.
    """
    if len(concepts) <= params.validation_concepts:
        raise UserError(
            f"data.validation_concepts = {params.validation_concepts}, but there are only "
            f"{len(concepts)} concepts: lower it so that some are left to train on"
        )
    return set(sorted(concepts, key=lambda c: rank(c, params.seed))[: params.validation_concepts])


def rank(name: str, seed: int) -> bytes:
    """A pseudo-random order of names that does not depend on which others there are."""
    return sha256(f"{seed}:{name}".encode()).digest()


def pack(folder: Path, split: str, samples: list[Sample], params: DataParams) -> dict[str, Any]:
    """Write a split's shards; return its part of the manifest."""
    size = params.samples_per_shard
    shards = [
        write_shard(folder / f"{split}-{number:05d}.tar", samples[start : start + size])
        for number, start in enumerate(range(0, len(samples), size))
    ]
    concepts = len({sample.meta["concept"] for sample in samples})
    return {"samples": len(samples), "concepts": concepts, "shards": shards}

"""From a source's raw pictures to train and validation shards."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from more_itertools import ichunked
from tqdm import tqdm

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, publish, write_json
from adapterbench.core.registry import load
from adapterbench.data.sample import SPLITS, RawSample, plain_key
from adapterbench.data.split import MORE, TooFewError, split
from adapterbench.formats.image import BadImageError, decode, is_blank, square
from adapterbench.formats.shards import Sample, write_shard

log = logging.getLogger(__name__)

LISTED = 10_000
"""Drops that the manifest names one by one; all are counted."""


@dataclass
class Drops:
    """What was left out, and why."""

    causes: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, str]] = field(default_factory=list)
    """The first `LISTED` drops."""
    seen: set[bytes] = field(default_factory=set)
    """Digests of the pictures and keys so far."""

    def add(self, key: str, cause: str) -> None:
        """Count one dropped sample."""
        self.causes[cause] += 1
        if len(self.rows) < LISTED:
            self.rows.append({"key": key, "cause": cause})

    def by_cause(self) -> dict[str, int]:
        """Number of drops for each cause."""
        return dict(sorted(self.causes.items()))

    def explained(self) -> str:
        """The causes with their numbers, the most frequent first."""
        return ", ".join(f"{count:,} {cause}" for cause, count in self.causes.most_common())

    def is_new(self, kind: str, content: bytes) -> bool:
        """Whether this content of a `kind` comes for the first time."""
        digest = sha256(kind.encode() + content).digest()[:16]  # there are millions
        new = digest not in self.seen
        self.seen.add(digest)
        return new


def prepare(params: DataParams, raw: Path, out: Path) -> dict[str, Any]:
    """Write `out/{train,validation}-00000.tar ...` and `out/manifest.json`; return the manifest.

    The bytes depend on the raw files and `params` alone.

    Raises:
        UserError: the raw files are damaged, or too few pictures are usable.
    """
    source = load("adapterbench.data.sources", params.source)
    samples = source.read(raw, parse(source.Params, params.fetch, "data.fetch"))
    shown = tqdm(samples, desc="prepare", unit="img", mininterval=1)
    drops = Drops()
    try:
        with publish(out) as folder:
            folder.mkdir()
            keep = partial(clean, params=params, drops=drops)
            splits = split(shown, keep, params, drops.add)
            packed = {name: pack(folder, name, rows, params) for name, rows in splits}
            if empty := [name for name in SPLITS if not packed.get(name, {}).get("samples")]:
                raise TooFewError(f"{raw} has no usable picture for {empty[0]}", MORE)
            manifest = {
                "attribution": source.ATTRIBUTION,
                "dropped": drops.by_cause(),
                "drops": drops.rows,
                "resolution": params.resolution,
                "splits": packed,
            }
            write_json(folder / MANIFEST, manifest)
    except TooFewError as error:
        if not drops.causes:
            raise
        raise UserError(
            f"{error.cause} (dropped: {drops.explained()}): mend those, or {error.remedy}"
        ) from error
    log.info("dropped: %s", drops.explained() or "nothing")
    return manifest


def clean(raw: Iterable[RawSample], params: DataParams, drops: Drops) -> Iterator[Sample]:
    """Decode, resize and keep the usable samples; count the others in `drops`."""
    for sample in raw:
        key = plain_key(sample.key)
        if cause := unusable(sample, key, drops):
            drops.add(key, cause)
            continue
        try:
            image = square(decode(sample.image), params.resolution)
        except BadImageError as error:
            drops.add(key, str(error))
            continue
        if is_blank(image):
            drops.add(key, "blank picture")
            continue
        meta = {**sample.meta, "concept": sample.concept or key}
        yield Sample(key=key, image=image, captions=sample.captions, meta=meta)


def unusable(sample: RawSample, key: str, drops: Drops) -> str:
    """Why a sample cannot be used, as far as can be said before it is decoded; else empty."""
    if not sample.image:
        return sample.problem
    if not any(caption.strip() for caption in sample.captions):
        return "no caption"
    if not drops.is_new("image", sample.image):
        return "duplicate picture"
    if not drops.is_new("key", key.encode()):
        return "duplicate key"
    return ""


def pack(folder: Path, name: str, samples: Iterable[Sample], params: DataParams) -> dict[str, Any]:
    """Write the shards of the split `name` as samples come; return its part of the manifest."""
    concepts = set()

    def noted() -> Iterator[Sample]:
        for sample in samples:
            concepts.add(sample.meta["concept"])
            yield sample

    shards = [
        write_shard(folder / f"{name}-{number:05d}.tar", chunk)
        for number, chunk in enumerate(ichunked(noted(), params.samples_per_shard))
    ]
    count = sum(shard["samples"] for shard in shards)
    return {"samples": count, "concepts": len(concepts), "shards": shards}

"""Train and validation shards from the raw images of a source.

Images in tars stay there: their headers are checked, and they are listed. Others are decoded,
scaled and packed, by one process per core.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from more_itertools import ichunked
from tqdm import tqdm

from adapterbench.core.config import DataParams, parse
from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, publish, write_json
from adapterbench.core.registry import load
from adapterbench.data.sample import SPLITS, RawSample, plain_key
from adapterbench.data.split import ADD_IMAGES, TooFewError, Usable, split
from adapterbench.formats.image import (
    BadImageError,
    check,
    decode,
    is_blank,
    is_jpeg,
    square,
    to_png,
)
from adapterbench.formats.listings import Listed, write_listing
from adapterbench.formats.shards import Packed, write_shard
from adapterbench.runs.workers import parallel_map

log = logging.getLogger(__name__)

LISTED = 10_000
"""Most dropped samples that the manifest lists; all are counted."""
AT_ONCE = 32
"""Images per task of a worker process."""


@dataclass
class Drops:
    """The dropped samples and their causes."""

    causes: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, str]] = field(default_factory=list)
    """The first `LISTED` drops."""
    seen: set[bytes] = field(default_factory=set)
    """Digests of the images and keys so far."""

    def add(self, key: str, cause: str) -> None:
        """Count one dropped sample."""
        self.causes[cause] += 1
        if len(self.rows) < LISTED:
            self.rows.append({"key": key, "cause": cause})

    def by_cause(self) -> dict[str, int]:
        """Number of drops for each cause."""
        return dict(sorted(self.causes.items()))

    def explained(self) -> str:
        """The causes with their counts, most frequent first."""
        return ", ".join(f"{count:,} {cause}" for cause, count in self.causes.most_common())

    def is_new(self, digest: bytes) -> bool:
        """Whether a digest occurs for the first time."""
        short = digest[:16]  # saves memory with millions of samples
        new = short not in self.seen
        self.seen.add(short)
        return new


def prepare(params: DataParams, raw: Path, out: Path) -> dict[str, Any]:
    """Write the shards of each split and `out/manifest.json`; return the manifest.

    `out/train-00000.json` lists images of the tars in `raw`, `out/train-00000.tar` holds images of
    other sources. The bytes depend on the raw files, their path relative to `out`, and `params`.

    Raises:
        UserError: the raw files are damaged, or too few images are usable.
    """
    source = load("adapterbench.data.sources", params.source)
    samples = source.read(raw, parse(source.Params, params.fetch, "data.fetch"))
    progress = tqdm(samples, desc="prepare", unit="img", mininterval=1)
    drops = Drops()
    try:
        with publish(out) as folder:
            folder.mkdir()
            keep = partial(clean, params=params, drops=drops, raw=raw)
            splits = split(progress, keep, params, drops.add)
            root = os.path.relpath(raw, out)
            written = {name: write(folder, name, rows, root, params) for name, rows in splits}
            if empty := [name for name in SPLITS if not written.get(name, {}).get("samples")]:
                raise TooFewError(f"{raw} has no usable image for {empty[0]}", ADD_IMAGES)
            manifest = {
                "attribution": source.ATTRIBUTION,
                "dropped": drops.by_cause(),
                "drops": drops.rows,
                "resolution": params.resolution,
                "splits": written,
            }
            write_json(folder / MANIFEST, manifest)
    except TooFewError as error:
        if not drops.causes:
            raise
        raise UserError(
            f"{error.cause} (dropped: {drops.explained()}): correct those, or {error.remedy}"
        ) from error
    log.info("dropped: %s", drops.explained() or "nothing")
    return manifest


def clean(
    samples: Iterable[RawSample], params: DataParams, drops: Drops, raw: Path
) -> Iterator[Usable]:
    """The usable samples, in order; the others are added to `drops`.

    Args:
        samples: from the source.
        params: the resolution to pack at.
        drops: collects the unusable samples.
        raw: folder of the tars.
    """
    tasks = (task(sample, drops, raw) for sample in samples)
    done = parallel_map(partial(run_task, side=params.resolution), tasks, AT_ONCE, needs_packing)
    for key, result in done:
        if isinstance(result, str):
            drops.add(key, result)
        else:
            yield result


Task = tuple[str, RawSample | Listed | str]
"""Key, and a raw sample to pack, a listed sample, or the cause of a drop."""


def task(sample: RawSample, drops: Drops, raw: Path) -> Task:
    """The packing task of a sample; also checks and lists images in tars."""
    key, digest = plain_key(sample.key), sha256(sample.image)
    if cause := unusable(sample, key, digest.digest(), drops):
        return key, cause
    if not (sample.tar and sample.place):
        return key, sample
    try:
        check(sample.image)
    except BadImageError as error:
        return key, str(error)
    return key, Listed(
        key=key,
        tar=sample.tar.relative_to(raw).as_posix(),
        offset=sample.place.offset,
        size=sample.place.size,
        sha256=digest.hexdigest(),
        captions=list(sample.captions),
        meta=metadata(sample, key),
    )


def unusable(sample: RawSample, key: str, digest: bytes, drops: Drops) -> str:
    """Why a sample cannot be used, as far as known before decoding; empty if it can.

    Args:
        sample: from the source.
        key: its key in the shards.
        digest: SHA-256 of its image file.
        drops: has the digests of the samples before it.
    """
    if not sample.image:
        return sample.problem
    if not any(caption.strip() for caption in sample.captions):
        return "no caption"
    if not drops.is_new(digest):
        return "duplicate image"
    if not drops.is_new(sha256(f"key {key}".encode()).digest()):
        return "duplicate key"
    return ""


def needs_packing(task: Task) -> bool:
    """Whether the image of a sample must be packed."""
    return isinstance(task[1], RawSample)


def run_task(task: Task, side: int) -> tuple[str, Usable | str]:
    """The key and the usable sample, or the cause of its drop; packs the image if needed."""
    key, sample = task
    return key, pack(sample, key, side) if isinstance(sample, RawSample) else sample


def pack(sample: RawSample, key: str, side: int) -> Packed | str:
    """A sample with its image cropped and scaled to `side` pixels, or the cause of its drop.

    A JPEG that already has this size keeps its bytes; all others become PNGs.
    """
    try:
        whole = decode(sample.image)
    except BadImageError as error:
        return str(error)
    image = square(whole, side)
    if is_blank(image):
        return "blank image"
    unchanged = is_jpeg(sample.image) and whole.size == (side, side)
    kind, data = ("jpg", sample.image) if unchanged else ("png", to_png(image))
    return Packed(key, kind, data, sample.captions, metadata(sample, key))


def metadata(sample: RawSample, key: str) -> dict[str, Any]:
    """The stored metadata of a sample; without a concept, its key is its concept."""
    return {**sample.meta, "concept": sample.concept or key}


def write(
    folder: Path, name: str, samples: Iterable[Usable], root: str, params: DataParams
) -> dict[str, Any]:
    """Write the shards of the split `name` from a stream; return its part of the manifest."""
    concepts = set()

    def with_concepts() -> Iterator[Usable]:
        for sample in samples:
            concepts.add(sample.meta["concept"])
            yield sample

    shards: list[dict[str, Any]] = []
    for kind, run in groupby(with_concepts(), key=type):  # one group: a source packs all or none
        for chunk in ichunked(run, params.samples_per_shard):
            path = folder / f"{name}-{len(shards):05d}"
            if kind is Listed:
                listed = cast("Iterable[Listed]", chunk)
                row = write_listing(path.with_suffix(".json"), root, params.resolution, listed)
            else:
                row = write_shard(path.with_suffix(".tar"), cast("Iterable[Packed]", chunk))
            shards.append(row)
    count = sum(shard["samples"] for shard in shards)
    return {"samples": count, "concepts": len(concepts), "shards": shards}

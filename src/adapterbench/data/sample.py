"""One captioned picture on its way from a source to a shard."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import webdataset as wds

from adapterbench.core.errors import UserError
from adapterbench.core.files import check_tar_end

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif")
"""Extensions of picture files."""
SPLITS = ("train", "validation")
"""In this order a source with a split of its own reads its samples."""
KEPT = ("path", "url")
"""Facts of a tar's `.json` that say where a picture came from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSample:
    """A picture as its source published it, before it is decoded."""

    key: str
    """Unique name without dots, also the stem of its members in the shard."""
    concept: str
    """What it shows; all pictures of a concept fall on one side of the split."""
    image: bytes
    """An encoded image file (PNG, JPEG, WebP)."""
    captions: tuple[str, ...]
    """Phrasings of its caption; the first is the one that is scored."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Further facts, kept in the sample's `.json`."""
    split: str | None = None
    """One of `SPLITS` where the source has a split of its own."""
    problem: str = "no picture in the set"
    """Why `image` is empty, where it is; the manifest counts these causes."""


def read_tars(raw: Path) -> Iterator[RawSample]:
    """Yield the samples of `raw/<split>/*.tar`, one split after the other, tars by name."""
    for split in SPLITS:
        for path in sorted((raw / split).glob("*.tar")):
            yield from read_tar(path, prefix=f"{path.stem}-", split=split)


def read_tar(path: Path, prefix: str = "", split: str | None = None) -> Iterator[RawSample]:
    """Yield the samples of a webdataset tar in order; one is held in memory at a time.

    A sample is a picture and a `.txt` whose lines are its phrasings. A `.json` may give its
    `concept` (its key, where there is none), and the `problem` why it has no picture.

    Args:
        path: the tar.
        prefix: goes before every key, so that keys of several tars differ.
        split: see `RawSample`.

    Raises:
        UserError: the tar is missing, truncated or damaged.
    """
    try:
        check_tar_end(path)
        for record in wds.WebDataset(str(path), shardshuffle=False, empty_check=False):
            yield raw_sample(record, prefix, split)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"{path} is missing, truncated or damaged ({cause}): run `dvc repro --force fetch`"
        ) from error


def raw_sample(record: dict[str, Any], prefix: str, split: str | None) -> RawSample:
    """A webdataset record as a sample."""
    facts = json.loads(record.get("json") or b"{}")
    key = prefix + record["__key__"].replace("/", "-")
    return RawSample(
        key=key,
        concept=str(facts.get("concept") or key),
        image=next((record[kind] for kind in PICTURES if kind in record), b""),
        captions=phrasings(record.get("txt", b"").decode(errors="replace")),
        meta={name: facts[name] for name in KEPT if name in facts},
        split=split,
        problem=facts.get("problem", "no picture file"),
    )


def phrasings(text: str) -> tuple[str, ...]:
    """The lines of a caption that are not empty."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())

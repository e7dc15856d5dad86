"""webdataset shards: `key.png`, `key.txt` (the caption), `key.json` (everything else)."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import webdataset as wds
from PIL import Image

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, check_tar_end, read_json, sha256
from adapterbench.formats.image import BadImageError, decode

IMAGES = ("png", "jpg", "jpeg", "webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A captioned picture of a shard."""

    key: str
    image: Image.Image
    """RGB."""
    captions: tuple[str, ...]
    """Phrasings; the first is the one that is scored."""
    meta: dict[str, Any]


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Write samples as one tar, the same bytes for the same samples; return its manifest row."""
    count = 0
    with wds.TarWriter(str(path), mtime=0) as tar:
        for sample in samples:
            png = BytesIO()
            sample.image.save(png, "PNG")
            facts = {**sample.meta, "captions": list(sample.captions)}
            tar.write(
                {
                    "__key__": sample.key,
                    "png": png.getvalue(),
                    "txt": sample.captions[0].encode(),
                    "json": json.dumps(facts, sort_keys=True).encode(),
                }
            )
            count += 1
    return {"name": path.name, "samples": count, "sha256": sha256(path)}


def shard_paths(folder: Path, split: str) -> list[Path]:
    """The shards of a split, in order, as the manifest lists them.

    Raises:
        UserError: the manifest or a shard that it names is missing, or the split is unknown.
    """
    splits = read_json(folder / MANIFEST)["splits"]
    if split not in splits:
        raise UserError(f"{folder} has no split {split!r} (it has {', '.join(splits)})")
    paths = [folder / shard["name"] for shard in splits[split]["shards"]]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"shard {path} is missing: run `dvc checkout` or `dvc repro prepare` to bring it"
            )
    return paths


def read_shard(path: Path, on_bad: list[dict[str, str]] | None = None) -> Iterator[Sample]:
    """Yield a shard's samples in order.

    A picture that cannot be decoded is appended to `on_bad` as `{key, cause}` and skipped; where
    `on_bad` is None it is an error.

    Raises:
        UserError: the tar is truncated or damaged, or a bad picture when `on_bad` is None.
    """
    # whoever asks for this shard reads it, in whichever process
    records = wds.WebDataset(str(path), shardshuffle=False, empty_check=False, nodesplitter=None)
    try:
        check_tar_end(path)
        yield from filter(None, (to_sample(record, path, on_bad) for record in records))
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"shard {path} is truncated or damaged ({cause}): "
            "delete it and run `dvc checkout` or `dvc repro prepare`"
        ) from error


def to_sample(
    record: dict[str, Any], path: Path, on_bad: list[dict[str, str]] | None
) -> Sample | None:
    """A webdataset record as a `Sample`, or None when its picture is bad and counted."""
    key = record["__key__"]
    data = next((record[kind] for kind in IMAGES if kind in record), b"")
    try:
        image = decode(data)
    except BadImageError as error:
        if on_bad is None:
            raise UserError(
                f"picture {key} in {path} is corrupt ({error}): run `dvc repro prepare`"
            ) from error
        on_bad.append({"key": key, "cause": str(error)})
        return None
    facts = json.loads(record.get("json", b"{}"))
    caption = record.get("txt", b"").decode()
    captions = tuple(facts.pop("captions", None) or [caption])
    return Sample(key=key, image=image, captions=captions, meta=facts)


def read_split(
    folder: Path, split: str, on_bad: list[dict[str, str]] | None = None
) -> Iterator[Sample]:
    """Yield the samples of all shards of a split, in order."""
    for path in shard_paths(folder, split):
        yield from read_shard(path, on_bad)

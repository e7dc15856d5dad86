"""The user's own pictures: a folder with captions beside them, a table, or webdataset tars."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from hashlib import sha256
from pathlib import Path

import pandas as pd
import webdataset as wds
from braceexpand import braceexpand
from more_itertools import ichunked
from tqdm import tqdm

from adapterbench.core.config import Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.data.sample import PICTURES, RawSample, read_tar

ATTRIBUTION = {"local": "the user's own pictures"}

TABLES = (".csv", ".tsv", ".parquet")
COLUMNS = ("path", "caption")
"""Columns that a table must have."""
PER_TAR = 1000
"""Pictures in a tar of `data/raw`; DVC is slow with many small files."""


class Params(Section):
    """Fields of `data.fetch` with `source: local`."""

    path: str
    """A folder of pictures with a `.txt` caption beside each; a `.csv`, `.tsv` or `.parquet` with
    columns path, caption and, if wanted, concept; or webdataset tars, such as `set/*.tar` or
    `set/{000..012}.tar`."""


@dataclass(frozen=True)
class Picture:
    """A picture of the user's and what is said of it."""

    name: str
    """Its path below the folder, or as the table has it."""
    file: Path
    caption: str
    """A phrasing a line."""
    concept: str | None = None
    """What it shows; each picture is a concept of its own where nothing is said."""


def fetch(params: Params, out: Path) -> None:
    """Copy the pictures into webdataset tars in `out`, as they are.

    A picture file or a caption that is missing is kept as a problem, which `prepare` counts.

    Raises:
        UserError: there is nothing at the path, or it has no captioned picture.
    """
    path = Path(params.path).expanduser()
    if is_tars(params):
        copy_tars(str(path), out)
        return
    if path.is_dir():
        pictures = in_folder(path)
    elif path.is_file() and path.suffix in TABLES:
        pictures = in_table(path)
    else:
        raise UserError(
            f"data.fetch.path = {params.path} is neither a folder nor a {', '.join(TABLES)} or "
            ".tar: set it to your pictures"
        )
    rows = tqdm(pictures, desc="fetch", unit="img")
    for number, chunk in enumerate(ichunked(rows, PER_TAR)):
        with (
            publish(out / f"{number:05d}.tar") as beside,
            wds.TarWriter(str(beside), mtime=0) as tar,
        ):
            for picture in chunk:
                tar.write(record(picture))


def is_tars(params: Params) -> bool:
    """Whether the path names webdataset tars."""
    return params.path.endswith(".tar")


def copy_tars(pattern: str, out: Path) -> None:
    """Copy the tars that a pattern with `*` or `{000..012}` names.

    Raises:
        UserError: there are none, or two have the same name.
    """
    # an absolute pattern is none for `Path.glob`
    tars = [Path(p) for part in braceexpand(pattern) for p in sorted(glob(part))]  # noqa: PTH207
    if not tars:
        raise UserError(f"data.fetch.path = {pattern} matches no file: set it to your tars")
    for tar in tqdm(tars, desc="fetch", unit="tar"):
        target = out / tar.name
        if target.exists():
            raise UserError(f"two tars of data.fetch.path have the name {tar.name}: rename one")
        with publish(target) as beside:
            shutil.copyfile(tar, beside)


def in_folder(folder: Path) -> list[Picture]:
    """Pictures in a folder and the folders in it, by name.

    Raises:
        UserError: there is no picture, or none has a caption.
    """
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower().removeprefix(".") in PICTURES and file.is_file()
    )
    if not files:
        raise UserError(
            f"{folder} has no picture ({', '.join(PICTURES)}): set data.fetch.path to your pictures"
        )
    texts = [file.with_suffix(".txt") for file in files]
    if not any(text.is_file() for text in texts):
        raise UserError(
            f"no picture in {folder} has a caption: put one beside each, such as {texts[0].name}, "
            "or set data.fetch.path to a table of path and caption"
        )
    return [
        Picture(
            name=file.relative_to(folder).as_posix(),
            file=file,
            caption=text.read_text("utf-8-sig", errors="replace") if text.is_file() else "",
        )
        for file, text in zip(files, texts, strict=True)
    ]


def in_table(path: Path) -> list[Picture]:
    """Pictures that a table lists, in its order; rows of the same picture are its phrasings.

    Paths are relative to the table's folder.

    Raises:
        UserError: the table cannot be read, lacks a column, or none of its files is there.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise UserError(
            f"{path} has no column {missing[0]!r} (it has {', '.join(map(str, table.columns))}): "
            "it needs path and caption, and may have concept"
        )
    table = table.fillna("").astype(str)
    pictures = [
        Picture(
            name=str(name),
            file=path.parent / str(name),
            caption="\n".join(rows["caption"]),
            concept=rows["concept"].iloc[0] if "concept" in rows else None,
        )
        for name, rows in table.groupby("path", sort=False)
    ]
    if not any(picture.file.is_file() for picture in pictures):
        raise UserError(
            f"none of the {len(pictures)} files that {path} lists is there: its paths must be "
            f"absolute or relative to {path.parent}"
        )
    return pictures


def read_table(path: Path) -> pd.DataFrame:
    """The table as it is; text alone in one of text.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        separator = "\t" if path.suffix == ".tsv" else ","
        # "NA" and "null" are captions too
        return pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own are ValueErrors
        cause = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({cause}): mend the table") from error


def record(picture: Picture) -> dict[str, str | bytes]:
    """A picture as a webdataset record."""
    facts = {"path": picture.name}
    row: dict[str, str | bytes] = {"__key__": key(picture.name), "txt": picture.caption}
    kind = picture.file.suffix.lower().removeprefix(".")
    if kind in PICTURES:
        try:
            row[kind] = picture.file.read_bytes()
        except OSError as error:
            facts["problem"] = (error.strerror or str(error)).lower()
    else:
        facts["problem"] = f"not a picture file ({', '.join(PICTURES)})"
    if picture.concept:
        facts["concept"] = picture.concept
    return {**row, "json": json.dumps(facts, ensure_ascii=False, sort_keys=True)}


def key(name: str) -> str:
    """A unique key without dots that people recognise, such as `cats-tom-1f2e3d4c`.

    It depends on the name alone, so that more pictures move no other between the splits.
    """
    words = re.sub(r"[^A-Za-z0-9_]+", "-", name.rpartition(".")[0]).strip("-")
    return f"{words[:60]}-{sha256(name.encode()).hexdigest()[:8]}"


def read(raw: Path, params: Params) -> Iterator[RawSample]:
    """Yield the pictures, tar by tar."""
    for tar in sorted(raw.glob("*.tar")):
        yield from read_tar(tar, prefix=f"{tar.stem}-" if is_tars(params) else "")

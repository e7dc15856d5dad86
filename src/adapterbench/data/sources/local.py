"""The user's own images: a folder with captions beside them, a table, or webdataset tars."""

import gzip
import json
import os
import re
import shutil
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from glob import glob
from math import isnan
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

import webdataset as wds
from braceexpand import braceexpand
from more_itertools import chunked
from tqdm import tqdm

from adapterbench.core.config import Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.data.sample import RawSample, digest_key, read_tar
from adapterbench.data.tables import READERS, read_table
from adapterbench.formats.image import SUFFIXES
from adapterbench.formats.tars import (
    MAX_BYTES,
    BadFileError,
    BadTarError,
    is_gzip,
    open_tar,
)
from adapterbench.runs.workers import parallel_map

ATTRIBUTION = {"local": "the user's own pictures"}

IMAGE_COLUMNS = ("path", "image_file", "file_name")
"""Ours, the original IP-Adapter's and Hugging Face's."""
CAPTION_COLUMNS = ("caption", "text")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables in a folder of images, as Hugging Face's `imagefolder` has them."""
TARS = (".tar", ".tar.gz", ".tgz")
PER_TAR = 1000
"""Images in a tar of `data/raw`; DVC is slow with many small files."""
EXPANSION, ALWAYS = 200, 2**20
"""How much larger a gzipped tar may be, and bytes that any may have: image files hardly grow."""


class Params(Section):
    """Fields of `data.fetch` with `source: local`."""

    path: str
    """A folder of images with a `.txt` caption beside each, or a `metadata` table as Hugging Face
    has it; a `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` that lists image files and captions
    and, if wanted, their `concept`; or webdataset tars, such as `set/*.tar` or
    `set/{000..012}.tar.gz`."""
    root: str | None = None
    """Folder that the paths of a table start from; `null`: the table's own."""
    image_column: str | None = None
    """Column of the image files; `null`: `path`, `image_file` or `file_name`."""
    caption_column: str | None = None
    """Column of the captions, which are texts or lists of texts; `null`: `caption` or `text`."""


@dataclass(frozen=True)
class Entry:
    """An image of the user's and what is said of it."""

    name: str
    """Its path below the folder, or as the table has it."""
    file: Path | None = None
    """None where there is a caption alone."""
    caption: bytes = b""
    """A phrasing a line."""
    concept: str | None = None
    """What it shows; each image is a concept of its own where nothing is said."""
    problem: str | None = None
    """Why it cannot be used, where that is known by now."""


def fetch(params: Params, out: Path) -> None:
    """Copy the images into webdataset tars in `out`, as they are.

    An image file or a caption that is missing is kept as a problem, which `prepare` counts.

    Raises:
        UserError: there is nothing at the path, or it has no captioned image.
    """
    with publish(out) as folder:
        folder.mkdir()
        if is_tars(params):
            copy_tars(str(Path(params.path).expanduser()), folder)
        else:
            pack(find(params), folder)


def is_tars(params: Params) -> bool:
    """Whether the path names webdataset tars."""
    return params.path.endswith(TARS)


def find(params: Params) -> list[Entry]:
    """The images that the path names.

    Raises:
        UserError: there are none.
    """
    path = Path(params.path).expanduser()
    if path.is_dir():
        return in_folder(path, params)
    if path.is_file() and path.suffix.lower() in READERS:
        return in_table(path, params)
    raise UserError(
        f"data.fetch.path = {params.path} is neither a folder nor a {', '.join(READERS)} or .tar: "
        "set it to your pictures"
    )


def in_folder(folder: Path, params: Params) -> list[Entry]:
    """The images in a folder and the folders in it, by name; tables first, then `.txt` files.

    Raises:
        UserError: there is no image, or none has a caption.
    """
    unread: list[OSError] = []
    files = list(walk(folder, unread))
    entries = {entry.name: entry for entry in beside(folder, files)}
    # those of inner folders last: they know better
    tables = sorted((f for f in files if f.name in METADATA), key=lambda file: len(file.parts))
    for table in tables:
        for entry in in_table(table, params):
            name = os.path.relpath(str(entry.file), folder)
            entries[name] = replace(entry, name=name)
    if not any(entry.file for entry in entries.values()):
        raise UserError(
            f"{folder} has no picture ({', '.join(SUFFIXES)}): set data.fetch.path to your pictures"
        )
    if not any(entry.file and entry.caption for entry in entries.values()):
        raise UserError(
            f"no picture in {folder} has a caption: put a .txt of the same name beside each, or "
            "set data.fetch.path to a table of path and caption"
        )
    for error in unread:
        name = os.path.relpath(error.filename, folder)
        entries[name] = Entry(name, problem=cause(error))
    return sorted(entries.values(), key=lambda entry: PurePosixPath(entry.name))


def walk(folder: Path, unread: list[OSError]) -> Iterator[Path]:
    """The files in a folder and the folders in it, linked ones too, each folder once.

    Args:
        folder: where to begin.
        unread: gets the errors of folders that cannot be listed.
    """
    seen: set[str] = set()
    waiting = [folder]  # links come last, so that a file has the name of where it really is
    while waiting:
        for place, folders, files in os.walk(waiting.pop(0), onerror=unread.append):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            waiting += sorted(link for name in folders if (link := Path(place, name)).is_symlink())
            yield from (Path(place, name) for name in files)


def beside(folder: Path, files: Iterable[Path]) -> Iterator[Entry]:
    """Image files with the `.txt` of the same name, and each `.txt` that has no image."""
    groups: dict[Path, dict[str, Path]] = defaultdict(dict)
    for file in sorted(files):
        kind = extension(file)
        if kind in (*SUFFIXES, "txt"):
            groups[file.with_suffix("")][file.name] = file
    for group in groups.values():
        texts = [file for file in group.values() if extension(file) == "txt"]
        images: list[Path | None] = [file for file in group.values() if file not in texts]
        for image in images or [None]:
            name = (image or texts[0]).relative_to(folder).as_posix()
            try:
                caption = read_file(texts[0]) if texts else b""
                yield Entry(name, image, caption)
            except BadFileError as error:
                yield Entry(name, image, problem=f"caption: {error}")


def extension(file: Path) -> str:
    """Of a file, in lower case and without dot."""
    return file.suffix.lower().removeprefix(".")


def in_table(path: Path, params: Params) -> list[Entry]:
    """The images that a table lists, in its order; rows of the same image are its phrasings.

    Raises:
        UserError: the table cannot be read, lacks a column, or none of its files is there.
    """
    rows = read_table(path)
    image = column(path, rows[0], params.image_column, IMAGE_COLUMNS)
    caption = column(path, rows[0], params.caption_column, CAPTION_COLUMNS)
    root = Path(params.root).expanduser() if params.root else path.parent
    phrasings: dict[str, list[str]] = defaultdict(list)
    concepts: dict[str, str] = {}
    for row in rows:
        name = text(row.get(image))
        phrasings[name].append(text(row.get(caption)))
        concepts.setdefault(name, text(row.get("concept")))
    entries = [
        Entry(name, root / name, encoded("\n".join(lines)), concepts[name])
        for name, lines in phrasings.items()
    ]
    # not `Path.is_file`, which takes no text that cannot be a path
    if not any(os.path.isfile(root / entry.name) for entry in entries):  # noqa: PTH113
        raise UserError(
            f"none of the {len(entries)} files that {path} lists is there: its paths must be "
            f"absolute or relative to {root}, which data.fetch.root sets"
        )
    return entries


def column(path: Path, row: dict[str, Any], own: str | None, usual: tuple[str, ...]) -> str:
    """The name of a column: the user's own, or the first of the usual ones.

    Raises:
        UserError: there is none.
    """
    names = (own,) if own else usual
    found = next((name for name in names if name in row), None)
    if found is None:
        raise UserError(
            f"{path} has no column {' or '.join(map(repr, names))} (it has "
            f"{', '.join(map(str, row))}): set data.fetch.image_column and caption_column to yours"
        )
    return found


def text(value: Any) -> str:
    """A table's value as text, a list of texts as lines."""
    if isinstance(value, list):
        return "\n".join(map(text, value))
    missing = value is None or (isinstance(value, float) and isnan(value))
    return "" if missing else str(value)


def encoded(value: str) -> bytes:
    """UTF-8; what is none in it, as names of files and JSON may have, is counted when read."""
    return value.encode(errors="surrogatepass")


def pack(entries: Iterable[Entry], out: Path) -> None:
    """Write `out/00000.tar ...`, by a process for each core."""
    parts = enumerate(chunked(entries, PER_TAR))
    tars = [(out / f"{number:05d}.tar", chunk) for number, chunk in parts]
    for _ in tqdm(parallel_map(write_tar, tars), "fetch", len(tars), unit="tar"):
        pass


def write_tar(task: tuple[Path, list[Entry]]) -> None:
    """Write a tar of entries."""
    path, entries = task
    with wds.TarWriter(str(path), mtime=0) as tar:
        for entry in entries:
            tar.write(record(entry))


def record(entry: Entry) -> dict[str, str | bytes]:
    """An entry as a webdataset record."""
    facts = {"path": encoded(entry.name).decode(errors="replace")}
    row: dict[str, str | bytes] = {"__key__": key(entry.name), "txt": entry.caption}
    try:
        if entry.problem:
            raise BadFileError(entry.problem)
        if entry.file:
            row[extension(entry.file)] = read_image(entry.file)
    except BadFileError as error:
        facts["problem"] = str(error)
    if entry.concept:
        facts["concept"] = entry.concept
    return {**row, "json": encoded(json.dumps(facts, ensure_ascii=False, sort_keys=True))}


def read_image(file: Path) -> bytes:
    """An image file as it is.

    Raises:
        BadFileError: it cannot be read, or its name is not that of an image.
    """
    if extension(file) not in SUFFIXES:
        raise BadFileError(f"not a picture file ({', '.join(SUFFIXES)})")
    return read_file(file)


def read_file(file: Path) -> bytes:
    """The bytes of a file.

    Raises:
        BadFileError: it cannot be read.
    """
    try:
        facts = file.stat()
        if S_ISREG(facts.st_mode) and facts.st_size <= MAX_BYTES:
            return file.read_bytes()
    except OSError as error:
        raise BadFileError(cause(error)) from error
    except ValueError as error:
        raise BadFileError("not a path") from error
    raise BadFileError("too many bytes" if S_ISREG(facts.st_mode) else "not a file")


def cause(error: OSError) -> str:
    """What the system says, as causes are written."""
    return (error.strerror or str(error)).lower()


def key(name: str) -> str:
    """A unique key that people recognise, such as `cats-tom-1f2e3d4c`."""
    return digest_key(name.rpartition(".")[0] or name, name)


def copy_tars(pattern: str, out: Path) -> None:
    """Copy the tars that a path, or a pattern with `*` or `{000..012}`, names; gunzip them.

    Raises:
        UserError: there are none, one is damaged, or two have the same name.
    """
    tars = named(pattern)
    if not tars:
        raise UserError(f"data.fetch.path = {pattern} matches no file: set it to your tars")
    for tar in tqdm(tars, desc="fetch", unit="tar"):
        target = out / re.sub(r"(\.tar|\.tgz|\.tar\.gz)?$", ".tar", tar.name, count=1)
        if target.exists():
            raise UserError(f"two tars of data.fetch.path have the name {tar.name}: rename one")
        copy_tar(tar, target)


def named(pattern: str) -> list[Path]:
    """The files of a path, whatever its characters, or else of a pattern.

    Raises:
        UserError: it has braces without their others.
    """
    if Path(pattern).is_file():
        return [Path(pattern)]
    try:
        parts = list(braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"data.fetch.path = {pattern} has unbalanced braces: mend it") from error
    # an absolute pattern is none for `Path.glob`
    return [Path(path) for part in parts for path in sorted(glob(part))]  # noqa: PTH207


def copy_tar(tar: Path, target: Path) -> None:
    """Copy a tar, gunzipped.

    Raises:
        UserError: it cannot be read, or is not whole.
    """
    try:
        (gunzip if is_gzip(tar) else shutil.copyfile)(tar, target)
        with open_tar(target):
            pass
    except (BadTarError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"{tar} cannot be read ({error}): download or pack it again, or leave it out of "
            "data.fetch.path"
        ) from error


def gunzip(source: Path, target: Path) -> None:
    """Unpack a gzip file.

    Raises:
        BadTarError: it is damaged, or a bomb.
    """
    room = ALWAYS + EXPANSION * source.stat().st_size
    try:
        with gzip.open(source) as packed, target.open("wb") as file:
            while block := packed.read(ALWAYS):
                room -= len(block)
                if room < 0:
                    raise BadTarError(f"it grows more than {EXPANSION}-fold")
                file.write(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadTarError(str(error)) from error


def read(raw: Path, params: Params) -> Iterator[RawSample]:
    """Yield the images, tar by tar."""
    for tar in sorted(raw.glob("*.tar")):
        yield from read_tar(tar, prefix=f"{tar.stem}-" if is_tars(params) else "")

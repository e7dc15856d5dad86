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

ATTRIBUTION = {"local": "the user's own images"}

IMAGE_COLUMNS = ("path", "image_file", "file_name")
"""Names of this project, of the original IP-Adapter and of Hugging Face."""
CAPTION_COLUMNS = ("caption", "text")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables in a folder of images, as Hugging Face's `imagefolder` has them."""
TARS = (".tar", ".tar.gz", ".tgz")
PER_TAR = 1000
"""Images in a tar of `data/raw`; DVC is slow with many small files."""
MAX_EXPANSION, ALLOWED_BYTES = 200, 2**20
"""Largest expansion of a gzipped tar, as a factor and in bytes that are always allowed."""


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
    """An image of the user with its caption."""

    name: str
    """Its path relative to the folder, or as given in the table."""
    file: Path | None = None
    """None: a caption without image."""
    caption: bytes = b""
    """One phrasing per line."""
    concept: str | None = None
    """What it shows; None or empty: unique to the image."""
    problem: str | None = None
    """Why it cannot be used, if already known."""


def fetch(params: Params, out: Path) -> None:
    """Copy the unchanged image files into webdataset tars in `out`.

    A missing image file or caption is recorded as a problem, which `prepare` counts.

    Raises:
        UserError: the path does not exist, or has no captioned image.
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
    """The images at the path.

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
        "set it to your images"
    )


def in_folder(folder: Path, params: Params) -> list[Entry]:
    """The images in a folder tree, sorted by name; tables take precedence over `.txt` files.

    Raises:
        UserError: there is no image, or none has a caption.
    """
    unread: list[OSError] = []
    files = list(walk(folder, unread))
    entries = {entry.name: entry for entry in beside(folder, files)}
    # tables in inner folders come last and take precedence
    tables = sorted((f for f in files if f.name in METADATA), key=lambda file: len(file.parts))
    for table in tables:
        for entry in in_table(table, params):
            name = os.path.relpath(str(entry.file), folder)
            entries[name] = replace(entry, name=name)
    if not any(entry.file for entry in entries.values()):
        raise UserError(
            f"{folder} has no image ({', '.join(SUFFIXES)}): set data.fetch.path to your images"
        )
    if not any(entry.file and entry.caption for entry in entries.values()):
        raise UserError(
            f"no image in {folder} has a caption: put a .txt of the same name beside each, or "
            "set data.fetch.path to a table of path and caption"
        )
    for error in unread:
        name = os.path.relpath(error.filename, folder)
        entries[name] = Entry(name, problem=cause(error))
    return sorted(entries.values(), key=lambda entry: PurePosixPath(entry.name))


def walk(folder: Path, unread: list[OSError]) -> Iterator[Path]:
    """The files in a folder tree, including linked folders, each folder once.

    Args:
        folder: root of the tree.
        unread: collects the errors of folders that cannot be listed.
    """
    seen: set[str] = set()
    waiting = [folder]  # links come last, so that a file is named by its real path
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
    """Image files with the `.txt` of the same name, and `.txt` files without image."""
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
    """Extension of a file, in lower case and without dot."""
    return file.suffix.lower().removeprefix(".")


def in_table(path: Path, params: Params) -> list[Entry]:
    """The images in a table, in order; several rows of an image are its phrasings.

    Raises:
        UserError: the table cannot be read, lacks a column, or none of its files exists.
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
    # not `Path.is_file`, which raises for text that cannot be a path
    if not any(os.path.isfile(root / entry.name) for entry in entries):  # noqa: PTH113
        raise UserError(
            f"none of the {len(entries)} files that {path} lists exists: its paths must be "
            f"absolute or relative to {root}, which data.fetch.root sets"
        )
    return entries


def column(
    path: Path, row: dict[str, Any], configured: str | None, defaults: tuple[str, ...]
) -> str:
    """The name of a column: the configured one, or the first default that the table has.

    Raises:
        UserError: there is none.
    """
    names = (configured,) if configured else defaults
    name = next((name for name in names if name in row), None)
    if name is None:
        raise UserError(
            f"{path} has no column {' or '.join(map(repr, names))} (it has "
            f"{', '.join(map(str, row))}): set data.fetch.image_column and caption_column to yours"
        )
    return name


def text(value: Any) -> str:
    """A table value as text; a list of texts as lines."""
    if isinstance(value, list):
        return "\n".join(map(text, value))
    missing = value is None or (isinstance(value, float) and isnan(value))
    return "" if missing else str(value)


def encoded(value: str) -> bytes:
    """Encode as UTF-8; lone surrogates of file names and JSON stay, and are rejected when read."""
    return value.encode(errors="surrogatepass")


def pack(entries: Iterable[Entry], out: Path) -> None:
    """Write `out/00000.tar ...` with one process per core."""
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
    """The bytes of an image file.

    Raises:
        BadFileError: it cannot be read, or has no extension of an image.
    """
    if extension(file) not in SUFFIXES:
        raise BadFileError(f"not an image file ({', '.join(SUFFIXES)})")
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
    """The system's message in lower case."""
    return (error.strerror or str(error)).lower()


def key(name: str) -> str:
    """A unique readable key, such as `cats-tom-1f2e3d4c`."""
    return digest_key(name.rpartition(".")[0] or name, name)


def copy_tars(pattern: str, out: Path) -> None:
    """Copy the tars at a path or pattern (`*`, `{000..012}`), gunzipped.

    Raises:
        UserError: there are none, one is damaged, or two have the same name.
    """
    tars = matching_files(pattern)
    if not tars:
        raise UserError(f"data.fetch.path = {pattern} matches no file: set it to your tars")
    for tar in tqdm(tars, desc="fetch", unit="tar"):
        target = out / re.sub(r"(\.tar|\.tgz|\.tar\.gz)?$", ".tar", tar.name, count=1)
        if target.exists():
            raise UserError(f"two tars of data.fetch.path have the name {tar.name}: rename one")
        copy_tar(tar, target)


def matching_files(pattern: str) -> list[Path]:
    """The file at a path, or else the files that match the path as a pattern.

    Raises:
        UserError: its braces are unbalanced.
    """
    if Path(pattern).is_file():
        return [Path(pattern)]
    try:
        parts = list(braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"data.fetch.path = {pattern} has unbalanced braces: correct it") from error
    # `Path.glob` accepts no absolute pattern
    return [Path(path) for part in parts for path in sorted(glob(part))]  # noqa: PTH207


def copy_tar(tar: Path, target: Path) -> None:
    """Copy a tar, gunzipped.

    Raises:
        UserError: it cannot be read or is incomplete.
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
        BadTarError: it is damaged, or a decompression bomb.
    """
    budget = ALLOWED_BYTES + MAX_EXPANSION * source.stat().st_size
    try:
        with gzip.open(source) as packed, target.open("wb") as file:
            while block := packed.read(ALLOWED_BYTES):
                budget -= len(block)
                if budget < 0:
                    raise BadTarError(f"it grows more than {MAX_EXPANSION}-fold")
                file.write(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadTarError(str(error)) from error


def read(raw: Path, params: Params) -> Iterator[RawSample]:
    """Yield the images, tar by tar."""
    for tar in sorted(raw.glob("*.tar")):
        yield from read_tar(tar, prefix=f"{tar.stem}-" if is_tars(params) else "")

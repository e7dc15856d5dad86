"""Files that are never half-written: write beside the target, then rename."""

import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterbench.core.errors import UserError, one_line

PRIVATE = 0o600
"""Permissions of a file that nobody but its owner may read."""
MANIFEST = "manifest.json"
"""Name of the file in which a folder of shards says what it holds."""


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it onto `path` when the block succeeds.

    The block may make a file or a directory there. Whatever stood at `path` is replaced as a
    whole, and an error, Ctrl-C or a full disk leaves it untouched and the sibling removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    remove(beside)
    beside.touch()
    mode = beside.stat().st_mode  # as the umask has it
    remove(beside)
    try:
        yield beside
        grant(beside, stat.S_IMODE(mode))
        swap(beside, path)
    finally:
        remove(beside)


def grant(path: Path, mode: int) -> None:
    """Give files that their writer kept private, as that of safetensors does, the usual `mode`."""
    for file in [path, *path.rglob("*")]:
        state = file.lstat()
        if stat.S_ISREG(state.st_mode) and stat.S_IMODE(state.st_mode) == PRIVATE:
            file.chmod(mode)


def swap(new: Path, path: Path) -> None:
    """Rename `new` onto `path`, whatever stood there.

    A directory cannot be renamed onto another in one step: the old one steps aside first, since
    deleting a tree takes long enough to be interrupted half-way, and comes back on an error.
    """
    if not (new.is_dir() or path.is_dir()):
        new.replace(path)
        return
    aside = path.with_name(f".{path.name}.partial-old-{os.getpid()}")
    if os.path.lexists(path):
        path.replace(aside)
    try:
        new.replace(path)
    except BaseException:
        if os.path.lexists(aside):
            aside.replace(path)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Delete a file or a directory tree; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """A hard link to the file itself where the file system allows it, a copy elsewhere.

    A symbolic link is followed: the hub's cache holds such.
    """
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_tar_end(path: Path) -> None:
    """Refuse a tar without its two closing empty blocks: cut between two members, it reads well.

    Raises:
        tarfile.ReadError: the end is missing.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        if size < 2 * tarfile.BLOCKSIZE or any(file.read()):
            raise tarfile.ReadError("it has no end")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as stable JSON: sorted keys, two spaces, a final newline."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    with publish(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run `dvc repro` to make it") from error
    except (OSError, ValueError, RecursionError) as error:  # also too deep, or too many digits
        raise UserError(
            f"{path} is not valid JSON ({one_line(error)}): delete it and run `dvc repro`"
        ) from error

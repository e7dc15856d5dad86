"""Atomic writes (a temporary sibling, then rename), digests and JSON files."""

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from adapterbench.core.errors import InputError, one_line

PRIVATE = 0o600
"""Permissions of a file that only its owner may read."""
MANIFEST = "manifest.json"
"""Name of the file that lists the content of a folder of shards."""
SETTLED = 2 * 10**9
"""Nanoseconds; longer than the clock resolution of any file system."""

LEFTOVER = re.compile(r"\.(?P<name>.+)\.partial-(?P<old>old-)?(?P<pid>\d+)(-(?P<host>\w+))?(-\w+)?")
"""Name of a temporary sibling of `publish`, with the process and host that write it."""
HOST = re.sub(r"\W", "_", platform.node()) or "unknown"
CLOCK = 60
"""Seconds; tolerance when the start time of a process is compared with a file's."""


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it onto `path` when the block succeeds.

    The block may create a file or a directory there. It replaces `path` as a whole. On an error,
    Ctrl-C or a full disk `path` is unchanged and the sibling is removed; leftovers of a killed
    process are removed by the next one that publishes in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent.resolve())
    beside = sibling(path)
    remove(beside)
    beside.touch()
    mode = beside.stat().st_mode  # honours the umask
    remove(beside)
    try:
        yield beside
        unify_permissions(beside, stat.S_IMODE(mode))
        swap(beside, path)
    finally:
        remove(beside)


def unify_permissions(path: Path, mode: int) -> None:
    """Set `mode` on files that a library created as private, as safetensors does."""
    for file in [path, *path.rglob("*")]:
        state = file.lstat()
        if stat.S_ISREG(state.st_mode) and stat.S_IMODE(state.st_mode) == PRIVATE:
            file.chmod(mode)


def sibling(path: Path, kind: str = "") -> Path:
    """Temporary path of this process for `path`; hidden, so other programs ignore it."""
    return path.with_name(f".{path.name}.partial-{kind}{os.getpid()}-{HOST}")


@cache
def sweep(folder: Path, name: str = "*") -> None:
    """Remove temporary siblings of dead processes of this host; once per process and folder.

    An old output that had been moved aside is restored, unless a new one has replaced it.

    Args:
        folder: where they wrote.
        name: glob pattern of their outputs.
    """
    for leftover in folder.glob(f".{name}.partial-*"):
        parts = LEFTOVER.fullmatch(leftover.name)
        if not parts or parts["host"] not in (None, HOST) or is_writer(int(parts["pid"]), leftover):
            continue
        path = folder / parts["name"]
        with suppress(OSError):  # another process removes it too, or it belongs to another user
            if parts["old"] and not os.path.lexists(path):
                leftover.replace(path)
            else:
                remove(leftover)


def is_writer(pid: int, path: Path) -> bool:
    """Whether the live process `pid` wrote `path`; the system reuses the pids of dead ones."""
    try:
        process = psutil.Process(pid)
        older = process.create_time() <= path.lstat().st_ctime + CLOCK
        return older and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def swap(new: Path, path: Path) -> None:
    """Rename `new` onto `path`; an old directory at `path` ends up at `new`.

    A directory cannot be renamed onto another in one step, and deleting a tree may be interrupted
    half-way. So the old one is moved aside first, and restored on an error.
    """
    if not (os.path.lexists(path) and (new.is_dir() or path.is_dir())):
        new.replace(path)
        return
    aside = sibling(path, "old-")
    remove(aside)
    path.replace(aside)
    try:
        new.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    aside.replace(new)  # under this name `sweep` does not restore it


def remove(path: Path) -> None:
    """Delete a file or a directory tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Create a hard link where the file system allows it, else a copy.

    For files that the project made or downloaded: a link to a user's own file would let an edit of
    it change what DVC has cached.

    Symbolic links, such as those in the Hugging Face cache, are followed.
    """
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, digest: str) -> None:
    """Compare a file's SHA-256 with the one recorded when it was written.

    The digest is cached per process while the size and modification time stay the same.

    Raises:
        ValueError: the digests differ.
    """
    status = path.stat()
    # a recent file may be rewritten within the resolution of the file system's clock
    settled = time.time_ns() - status.st_mtime_ns > SETTLED
    actual = cached_sha256(path, status.st_size, status.st_mtime_ns) if settled else sha256(path)
    if actual != digest:
        raise ValueError(f"its SHA-256 is {actual[:12]}.., not {digest[:12]}.. as when it was made")


@cache
def cached_sha256(path: Path, _size: int, _time: int) -> str:
    """`sha256` of a file whose size and modification time are part of the cache key."""
    return sha256(path)


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
        raise InputError(f"{path} is missing", path) from error
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # also nesting that is too deep, or too many digits
        raise InputError(f"{path} is not valid JSON ({one_line(error)})", path) from error

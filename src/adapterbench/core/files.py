"""Files that are never half-written: write beside the target, then rename."""

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
"""Permissions of a file that nobody but its owner may read."""
MANIFEST = "manifest.json"
"""Name of the file in which a folder of shards says what it holds."""
SETTLED = 2 * 10**9
"""Nanoseconds that are more than the tick of any file system's clock."""

LEFTOVER = re.compile(r"\.(?P<name>.+)\.partial-(?P<old>old-)?(?P<pid>\d+)(-(?P<host>\w+))?(-\w+)?")
"""Name of what `publish` has not finished, by the process and host that make it."""
HOST = re.sub(r"\W", "_", platform.node()) or "unknown"
CLOCK = 60
"""Seconds by which the start of a process may seem later than it was."""


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it onto `path` when the block succeeds.

    The block may make a file or a directory there. Whatever stood at `path` is replaced as a
    whole, and an error, Ctrl-C or a full disk leaves it untouched and the sibling removed; what a
    killed process left is removed by the next that publishes in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent.resolve())
    beside = sibling(path)
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


def sibling(path: Path, kind: str = "") -> Path:
    """Where this process keeps what belongs at `path`; other programs ignore hidden files."""
    return path.with_name(f".{path.name}.partial-{kind}{os.getpid()}-{HOST}")


@cache
def sweep(folder: Path, name: str = "*") -> None:
    """Remove what dead processes of this host have not finished in a folder, once a process.

    Args:
        folder: where they were at work.
        name: of the outputs that they were to be.

    An old output that stepped aside comes back, unless another has taken its place.
    """
    for left in folder.glob(f".{name}.partial-*"):
        facts = LEFTOVER.fullmatch(left.name)
        if not facts or facts["host"] not in (None, HOST) or is_maker(int(facts["pid"]), left):
            continue
        path = folder / facts["name"]
        with suppress(OSError):  # another process sweeps too, or it belongs to another user
            if facts["old"] and not os.path.lexists(path):
                left.replace(path)
            else:
                remove(left)


def is_maker(pid: int, path: Path) -> bool:
    """Whether the process `pid` lives and made `path`: numbers of dead ones are given again."""
    try:
        process = psutil.Process(pid)
        older = process.create_time() <= path.lstat().st_ctime + CLOCK
        return older and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def swap(new: Path, path: Path) -> None:
    """Rename `new` onto `path`, whatever stood there; it may then stand at `new`.

    A directory cannot be renamed onto another in one step: the old one steps aside first, since
    deleting a tree takes long enough to be interrupted half-way, and comes back on an error.
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
    aside.replace(new)  # under this name it never comes back


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


def check_digest(path: Path, digest: str) -> None:
    """Compare a file's SHA-256 with the one that was noted when it was written.

    Once a process, as long as size and time of the file stay as they are.

    Raises:
        ValueError: it is another.
    """
    facts = path.stat()
    # a file that was written just now may be written again within the clock's tick
    settled = time.time_ns() - facts.st_mtime_ns > SETTLED
    found = known_sha256(path, facts.st_size, facts.st_mtime_ns) if settled else sha256(path)
    if found != digest:
        raise ValueError(f"its SHA-256 is {found[:12]}.., not {digest[:12]}.. as when it was made")


@cache
def known_sha256(path: Path, _size: int, _time: int) -> str:
    """`sha256` of a file that has not changed."""
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
    except (OSError, ValueError, RecursionError) as error:  # also too deep, or too many digits
        raise InputError(f"{path} is not valid JSON ({one_line(error)})", path) from error

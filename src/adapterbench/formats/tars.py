"""Reading of tars, incomplete ones rejected, and of the samples of webdataset tars.

`tarfile` mistakes a damaged or zeroed header for the end of the archive, and webdataset, which uses
it, cuts names at their first dot. So every tar is opened here.
"""

import json
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterbench.core.documents import unique_keys

MAX_BYTES = 256 * 2**20
"""Larger files are not read into memory; 16 megapixels of 16-bit RGBA take half as much."""
END = 2 * tarfile.BLOCKSIZE
"""Bytes of the empty blocks that end a tar; more of them pad its last record."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""Control characters other than tabs and line ends."""
GZIP = b"\x1f\x8b"
"""Signature of a gzip file."""


class BadTarError(ValueError):
    """A tar that is incomplete or damaged; the message is the cause."""


class BadFileError(ValueError):
    """A file of a tar that cannot be used; the message is the cause that reports count."""


@dataclass(frozen=True, slots=True)
class Place:
    """Byte range of a file in an uncompressed tar."""

    offset: int
    """Its first byte."""
    size: int
    """Bytes."""


class Tar:
    """A tar whose headers have all been read."""

    def __init__(self, tar: tarfile.TarFile, gzipped: bool) -> None:
        self.tar, self.gzipped = tar, gzipped
        self.members: dict[str, list[tarfile.TarInfo]] = {}
        """By path, without the `./` that `tar .` puts before each."""
        for member in tar.getmembers():
            self.members.setdefault(posixpath.normpath(member.name), []).append(member)

    def read(self, name: str) -> bytes:
        """The bytes of a file, or of the target of a link within the tar.

        Raises:
            KeyError: there is no such file.
            BadFileError: it is there twice, too large, or not a file.
        """
        file = self.tar.extractfile(self.file(name))
        assert file is not None
        return file.read()

    def place(self, name: str) -> Place | None:
        """Byte range of what `read` returns; None if the tar is compressed or the file sparse.

        Raises:
            KeyError: there is no such file.
            BadFileError: see `read`.
        """
        member = self.file(name)
        if self.gzipped or member.issparse():
            return None
        return Place(member.offset_data, member.size)

    def file(self, name: str) -> tarfile.TarInfo:
        """The member that holds a file; see `read`."""
        members = self.members[name]
        if len(members) > 1:
            raise BadFileError("twice in its tar")
        member = self.resolve_link(members[0])
        if not member.isreg():
            raise BadFileError("not a file")
        if member.size > MAX_BYTES:
            raise BadFileError("too many bytes")
        return member

    def resolve_link(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """A member, or the target of a link.

        Raises:
            BadFileError: the target is not a regular file of the tar.
        """
        if not (member.islnk() or member.issym()):
            return member
        # a hard link names its target from the root of the tar, a symbolic one from where it is
        start = posixpath.dirname(member.name) if member.issym() else ""
        targets = self.members.get(posixpath.normpath(posixpath.join(start, member.linkname)), [])
        if len(targets) != 1 or not targets[0].isreg():
            raise BadFileError("a link to no file of its tar")
        return targets[0]


@contextmanager
def open_tar(path: Path) -> Iterator[Tar]:
    """Open a tar, gzipped or not, and check that it is complete.

    Raises:
        FileNotFoundError: it is missing.
        BadTarError: it is truncated or damaged, or has a hole.
    """
    with ExitStack() as stack:
        try:
            gzipped = is_gzip(path)
            tar = stack.enter_context(tarfile.open(path, "r:gz" if gzipped else "r:"))
            check_complete(tar)
        except (BadTarError, FileNotFoundError):
            raise
        except Exception as error:  # tarfile raises many kinds on damaged bytes
            cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadTarError(" ".join(cause.split())) from error
        yield Tar(tar, gzipped)


def is_gzip(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def check_complete(tar: tarfile.TarFile) -> None:
    """Read all headers and check that only the zeros of the tar's end follow the last file.

    Raises:
        BadTarError: other data follow, or more zeros than pad a record, as after an interrupted
            download into a preallocated file.
    """
    at = -1
    for _ in tar:
        if tar.offset <= at:  # a negative size, with which some versions of tarfile loop forever
            raise BadTarError("one of its headers leads back")
        at = tar.offset
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    zeros = 0
    # up to the end, where gzip has a checksum
    while block := tar.fileobj.read(tarfile.RECORDSIZE):
        zeros += len(block)
        if block.count(0) < len(block):
            raise BadTarError(f"it has a hole or a damaged header at byte {tar.offset}")
        if zeros >= END + tarfile.RECORDSIZE:
            raise BadTarError(f"from byte {tar.offset} on it has only zeros")
    if zeros < END:
        raise BadTarError("it has no end")


@dataclass(frozen=True, slots=True)
class Record:
    """The files of a tar whose names differ only in the extension."""

    name: str
    """Their path in the tar without the extension."""
    files: dict[str, bytes] = field(default_factory=dict)
    """By extension, in lower case, without dot."""
    problems: dict[str, str] = field(default_factory=dict)
    """By extension, why a file cannot be used."""
    places: dict[str, Place] = field(default_factory=dict)
    """Byte ranges by extension, of files that are stored uncompressed."""

    def __contains__(self, kind: str) -> bool:
        return kind in self.files or kind in self.problems

    def read(self, kind: str) -> bytes | None:
        """The file with an extension, None where there is none.

        Raises:
            BadFileError: it cannot be used.
        """
        if kind in self.problems:
            raise BadFileError(self.problems[kind])
        return self.files.get(kind)

    def caption(self) -> str:
        """The text of the `.txt`, without byte order marks; empty where there is none.

        Raises:
            BadFileError: it is not UTF-8, or has control characters, as UTF-16 does.
        """
        try:
            text = (self.read("txt") or b"").decode()
        except UnicodeDecodeError as error:
            raise BadFileError("caption is not UTF-8") from error
        if CONTROL.search(text):
            raise BadFileError("caption is not UTF-8")
        # concatenated files have byte order marks between their lines
        return text.replace("\ufeff", "")

    def facts(self) -> dict[str, Any]:
        """The object that the `.json` holds; empty where there is none.

        Raises:
            BadFileError: it is damaged or holds something else.
        """
        data = self.read("json")
        try:
            # pandas writes NaN for missing values
            facts = (
                {}
                if data is None
                else json.loads(data, parse_constant=lambda _: None, object_pairs_hook=unique_keys)
            )
        except (ValueError, RecursionError) as error:
            raise BadFileError("its .json is damaged") from error
        if not isinstance(facts, dict):
            raise BadFileError("its .json is not an object")
        return facts


def read_records(path: Path, kinds: Collection[str]) -> Iterator[Record]:
    """Yield the records of a webdataset tar in the order of their first files, one at a time.

    The files of a record may be anywhere in the tar: `tar` packs a folder in directory order.

    Args:
        path: of the tar.
        kinds: extensions of the files that are read; others and hidden files are ignored.

    Raises:
        FileNotFoundError: it is missing.
        BadTarError: it is incomplete or damaged.
    """
    with open_tar(path) as tar:
        for stem, parts in records(tar, kinds).items():
            yield read_record(tar, stem, parts)


Parts = list[tuple[str, str]]
"""Extensions and paths of the files of a record."""


def records(tar: Tar, kinds: Collection[str]) -> dict[str, Parts]:
    """Extensions and paths of the files of each record, by its name."""
    names: dict[str, Parts] = {}
    for name in tar.members:
        stem, kind = split_name(name)
        if kind in kinds:
            names.setdefault(stem, []).append((kind, name))
    return names


def read_record(tar: Tar, stem: str, parts: Parts) -> Record:
    """The files of a record."""
    record = Record(stem)
    for kind, name in parts:
        try:
            if kind in record.files:  # a.jpg and a.JPG
                raise BadFileError("twice in its tar")
            record.files[kind] = tar.read(name)
            if place := tar.place(name):
                record.places[kind] = place
        except BadFileError as error:
            record.problems[kind] = str(error)
    return record


def split_name(path: str) -> tuple[str, str]:
    """Path without extension, and extension in lower case; that of a hidden file is empty."""
    folder, name = posixpath.split(path)
    stem, dot, kind = name.rpartition(".")
    if not dot or name.startswith("."):
        return path, ""
    return posixpath.join(folder, stem), kind.lower()

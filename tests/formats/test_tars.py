"""A tar is read to its end or refused; its files are grouped by their names alone."""

import gzip
import io
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterbench.formats import tars
from adapterbench.formats.tars import BadFileError, BadTarError, open_tar, read_records

KINDS = ("jpg", "png", "txt")
FILES = {f"{n}.{kind}": f"{kind} {n}".encode() * 99 for n in range(4) for kind in ("jpg", "txt")}


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **facts: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for fact, value in facts.items():
        setattr(info, fact, value)
    tar.addfile(info, io.BytesIO(data) if data else None)


def write(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with open_tar(path) as tar:
        return {name: tar.read(name) for name in tar.members}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return write(tmp_path / "a.tar", FILES)


def refusal(path: Path) -> str:
    with pytest.raises(BadTarError) as caught, open_tar(path):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_tar_is_read(tar: Path) -> None:
    assert contents(tar) == FILES
    packed = tar.with_suffix(".tgz")
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    assert contents(packed) == FILES


def test_shortest_ends_and_empty_tars_are_whole(tar: Path, tmp_path: Path) -> None:
    data = tar.read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    tar.write_bytes(data[: end + 1024])
    assert contents(tar) == FILES
    tar.write_bytes(data[:end] + bytes(10_240))  # GNU tar fills up a record
    assert contents(tar) == FILES
    assert contents(write(tmp_path / "empty.tar", {})) == {}


def headers(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_holes_and_damaged_headers_are_refused(tar: Path, pack: Callable[[bytes], bytes]) -> None:
    data = tar.read_bytes()
    for at in headers(tar):
        hole = data[:at] + bytes(512) + data[at + 512 :]
        damaged = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        cut = data[:at]
        for bad in (hole, damaged, cut):
            tar.write_bytes(pack(bad))
            refusal(tar)


def test_zeros_to_the_end_are_refused(tmp_path: Path) -> None:
    """What a download leaves that reserved its place and broke off."""
    tar = write(tmp_path / "a.tar", {f"{n:03d}.jpg": bytes([n]) * 700 for n in range(1, 99)})
    data = tar.read_bytes()
    for at in headers(tar)[:90]:
        tar.write_bytes(data[:at] + bytes(len(data) - at))
        assert "it has only zeros" in refusal(tar)


def test_what_follows_the_end_is_refused(tar: Path) -> None:
    """Such as a second tar: the first's end hides it from most readers."""
    data = tar.read_bytes()
    tar.write_bytes(data + data)
    assert "a hole or a damaged header at byte" in refusal(tar)


def test_gzip_is_checked_to_its_end(tar: Path) -> None:
    """Its checksum stands behind the last zeros, which no reader of tars asks for."""
    packed = bytearray(gzip.compress(tar.read_bytes(), 0))
    packed[600] ^= 1  # within the first file
    tar.write_bytes(packed)
    assert "CRC" in refusal(tar)


def test_a_header_that_leads_back_is_refused(tmp_path: Path) -> None:
    """A negative size sends some versions of Python's reader round for ever."""
    path = write(tmp_path / "a.tar", {"a.jpg": b"-", "b.jpg": b"-"})
    data = bytearray(path.read_bytes())
    header = data[1024:1536]
    header[124:136] = b"\xff" * 10 + b"\xf8\x00"  # -2048, as GNU writes numbers of that size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    path.write_bytes(data)
    refusal(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damage_anywhere_is_refused_or_within_a_file(
    tar: Path, pack: Callable[[bytes], bytes]
) -> None:
    """No file is lost or made up; a plain tar has no checksum of what its files hold.

    The last file is longer than what is damaged: zeros over all of a short one are an end.
    """
    files = FILES | {"last.jpg": b"x" * 3000}
    data = pack(write(tar, files).read_bytes())
    draw = random.Random(0)
    for _ in range(300):
        bad = bytearray(data)
        at, length = draw.randrange(len(data)), draw.choice([1, 2, 300, 2000])
        makers: list[Callable[[int], bytes]] = [bytes, draw.randbytes]
        bad[at : at + length] = draw.choice(makers)(min(length, len(data) - at))
        tar.write_bytes(bad)
        try:
            found = contents(tar)
        except (BadTarError, BadFileError):
            continue
        assert {name: len(data) for name, data in found.items()} == {
            name: len(data) for name, data in files.items()
        }
        assert pack is bytes or found == files


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"no tar" * 999, "gzip": gzip.compress(b"x")}.items():
        (tmp_path / name).write_bytes(data)
        refusal(tmp_path / name)
    refusal(tmp_path)
    with pytest.raises(FileNotFoundError), open_tar(tmp_path / "absent.tar"):
        pass


def records(path: Path) -> list[tuple[str, dict[str, bytes], dict[str, str]]]:
    return [(r.name, r.files, r.problems) for r in read_records(path, KINDS)]


def test_files_are_grouped_by_name_wherever_they_lie(tmp_path: Path) -> None:
    names = ["./1.jpg", "v1.0/2.jpg", "a.b.c.jpg", "dir/x.JPG", "1.txt", "./a.b.c.txt",
             "v1.0/2.txt", "dir/x.Txt", "lonely.txt"]  # fmt: skip
    others = ["._1.jpg", "__MACOSX/._1.jpg", ".jpg", "README", "1.cls", "1.jpg.md5"]
    path = write(tmp_path / "a.tar", {name: name.encode() for name in [*names, *others]})
    assert records(path) == [
        ("1", {"jpg": b"./1.jpg", "txt": b"1.txt"}, {}),
        ("v1.0/2", {"jpg": b"v1.0/2.jpg", "txt": b"v1.0/2.txt"}, {}),
        ("a.b.c", {"jpg": b"a.b.c.jpg", "txt": b"./a.b.c.txt"}, {}),
        ("dir/x", {"jpg": b"dir/x.JPG", "txt": b"dir/x.Txt"}, {}),
        ("lonely", {"txt": b"lonely.txt"}, {}),
    ]


def test_a_folder_packed_by_tar_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name, data in FILES.items():
        (folder / "v1.0").mkdir(parents=True, exist_ok=True)
        (folder / "v1.0" / name).write_bytes(data)
    os.link(folder / "v1.0/0.jpg", folder / "hard.jpg")
    (folder / "soft.jpg").symlink_to("v1.0/1.jpg")
    subprocess.run(["tar", "-C", folder, "-cf", tmp_path / "a.tar", "."], check=True)
    found = {name: files for name, files, _ in records(tmp_path / "a.tar")}
    assert found == {
        **{f"v1.0/{n}": {k: FILES[f"{n}.{k}"] for k in ("jpg", "txt")} for n in range(4)},
        "hard": {"jpg": FILES["0.jpg"]},
        "soft": {"jpg": FILES["1.jpg"]},
    }


def test_sparse_files_are_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(100_000)
        file.seek(50_000)
        file.write(b"data")
    for format in ("gnu", "posix"):
        command: list[str | Path]
        command = ["tar", "-S", f"--format={format}", "-C", tmp_path, "-cf", tmp_path / "a.tar"]
        subprocess.run([*command, "a.jpg"], check=True)
        assert contents(tmp_path / "a.tar") == {"a.jpg": (tmp_path / "a.jpg").read_bytes()}


def test_what_cannot_be_read_is_a_problem_of_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_BYTES", 1000)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "twice.jpg", b"one")
        add(tar, "twice.jpg", b"two")
        add(tar, "case.jpg", b"one")
        add(tar, "case.JPG", b"two")
        add(tar, "large.jpg", b"x" * 1001)
        add(tar, "out.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "up.jpg", type=tarfile.SYMTYPE, linkname="../good.jpg")
        add(tar, "itself.jpg", type=tarfile.SYMTYPE, linkname="itself.jpg")
        add(tar, "gone.jpg", type=tarfile.LNKTYPE, linkname="nothing.jpg")
        add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
        add(tar, "folder.jpg", type=tarfile.DIRTYPE)
        add(tar, "good.jpg", b"good")
    link = "a link to no file of its tar"
    assert {name: problems["jpg"] for name, _, problems in records(path) if problems} == {
        "twice": "twice in its tar",
        "case": "twice in its tar",
        "large": "too many bytes",
        "out": link,
        "up": link,
        "itself": link,
        "gone": link,
        "pipe": "not a file",
        "folder": "not a file",
    }
    assert ("good", {"jpg": b"good"}, {}) in records(path)


def test_a_claimed_size_takes_no_memory(tmp_path: Path) -> None:
    """A sparse file of a terabyte is 10 kB of tar."""
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(10**12)
    command: list[str | Path]
    command = ["tar", "-S", "-C", tmp_path, "-cf", tmp_path / "a.tar", "a.jpg"]
    subprocess.run(command, check=True)
    assert records(tmp_path / "a.tar")[0][2] == {"jpg": "too many bytes"}

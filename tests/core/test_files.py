"""A path holds the old content or the new one, whole, whatever happens in between."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from adapterbench.core import files
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish, read_json, remove, sha256, write_json


def tree(path: Path) -> dict[str, bytes]:
    """Every file below `path`, hidden ones too."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def fill(path: Path, **files: str) -> None:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)


def give_up(
    target: Path, write: Callable[[Path], object], error: type[BaseException] | BaseException
) -> None:
    """Write part of `target`, then raise."""
    with publish(target) as beside:
        write(beside)
        raise error


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "a.txt"
    with publish(target) as beside:
        beside.write_text("new")
        assert beside.parent == target.parent  # the same disk, so that the rename is atomic
        assert not target.exists()
    assert tree(tmp_path) == {"deep/er/a.txt": b"new"}


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with publish(tmp_path / "a") as beside:
        beside.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert tree(tmp_path) == {"a": b"new"}


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path / "a", x="old", y="old")
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}


def test_a_directory_takes_the_place_of_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}
    with publish(tmp_path / "a") as beside:
        beside.write_text("newer")
    assert tree(tmp_path) == {"a": b"newer"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "cache", x="kept")
    (tmp_path / "a").symlink_to(tmp_path / "cache")
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert not (tmp_path / "a").is_symlink()
    assert tree(tmp_path) == {"a/x": b"new", "cache/x": b"kept"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error):
        give_up(tmp_path / "a", lambda beside: beside.write_text("half"), error)
    assert tree(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_directory_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    fill(tmp_path / "a", x="old", y="old")
    with pytest.raises(error):
        give_up(tmp_path / "a", lambda beside: fill(beside, x="half"), error)
    assert tree(tmp_path) == {"a/x": b"old", "a/y": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_in_the_last_rename_brings_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", x="old")
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target == tmp_path / "a" and "old" not in self.name:
            raise OSError(errno.EIO, "disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="disk trouble"), publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_block_that_makes_nothing_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "a", x="old")
    with pytest.raises(FileNotFoundError), publish(tmp_path / "a"):
        pass
    assert tree(tmp_path) == {"a/x": b"old"}


@contextmanager
def full_disk() -> Iterator[None]:
    """A limit on file size: the write that passes it fails half-way, as on a full disk.

    As short as can be, for it holds for pytest's own output too.
    """
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    old = tree(tmp_path)
    with pytest.raises(OSError, match="too large"), full_disk():
        write_json(tmp_path / "a.json", {"new": "x" * 5000})
    assert tree(tmp_path) == old


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize("name", [".a.partial-{}-{}", ".b.partial-{}-{}", ".a.partial-{}",
                                  ".a.tgz.partial-{}-{}-npm", ".a.partial-old-{}-{}"])  # fmt: skip
def test_what_a_dead_process_left_is_removed(tmp_path: Path, name: str, dead: int) -> None:
    fill(tmp_path / "a", x="old")
    fill(tmp_path / name.format(dead, files.HOST), x="stale", y="stale")
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}


def test_what_a_process_of_the_same_number_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".a.partial-{os.getpid()}-{files.HOST}"
    fill(left, x="stale", y="stale")
    with publish(tmp_path / "a") as beside:
        assert beside == left
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}


def test_a_number_that_was_given_again_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose first processes have the same numbers each time."""
    fill(tmp_path / f".b.partial-{os.getppid()}-{files.HOST}", x="stale")
    started = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: started(self) + 1e9)
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}


def test_a_killed_process_that_nobody_waits_for_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        fill(tmp_path / f".b.partial-{process.pid}-{files.HOST}", x="stale")
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with publish(tmp_path / "a") as beside:
            fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new"}


def test_what_may_be_at_work_stays(tmp_path: Path, dead: int) -> None:
    """A living process, another host, and what was not left by us."""
    kept = [f".b.partial-{os.getppid()}-{files.HOST}", f".b.partial-{dead}-elsewhere"]
    kept += [".b.partial-", ".b.partial-x", "b.partial-1", f"b.partial-{dead}"]
    for name in kept:
        fill(tmp_path / name, x="")
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert {path.name for path in tmp_path.iterdir()} == {"a", *kept}


def test_an_output_that_stepped_aside_comes_back(tmp_path: Path, dead: int) -> None:
    fill(tmp_path / f".a.partial-old-{dead}-{files.HOST}", x="old")
    with pytest.raises(ValueError, match="full"):
        give_up(tmp_path / "a", lambda beside: fill(beside, x="half"), ValueError("full"))
    assert tree(tmp_path) == {"a/x": b"old"}


def test_what_is_being_deleted_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as it deletes the old folder, it leaves the half of it, which is no output."""
    fill(tmp_path / "a", x="old", y="old")
    monkeypatch.setattr(shutil, "rmtree", lambda path: (path / "y").unlink())
    with publish(tmp_path / "a") as beside:
        fill(beside, x="new")
    assert tree(tmp_path) == {"a/x": b"new", f"{beside.name}/x": b"old"}
    assert "-old-" not in beside.name


def test_remove_takes_files_trees_links_and_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "tree", x="1")
    (tmp_path / "file").write_text("1")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("tree", "file", "link", "absent"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_sha256_is_the_digest_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()


def test_json_is_stable_and_comes_back(tmp_path: Path) -> None:
    value: Any = {"b": [1, 2.5, None], "a": "Việt"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert "Việt" in text
    assert json.loads(text) == read_json(tmp_path / "a.json") == value


def test_an_object_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert tree(tmp_path) == {"a.json": b"1\n"}


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe{"])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="make it again") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_private_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    """Libraries that write a temporary file and rename it leave it to its owner alone."""
    usual = tmp_path / "usual"
    usual.touch()
    with publish(tmp_path / "it") as beside:
        fill(beside, private="", read_only="", program="")
        for name, bits in (("private", 0o600), ("read_only", 0o444), ("program", 0o755)):
            (beside / name).chmod(bits)
        (beside / "link").symlink_to("nowhere")
    with publish(tmp_path / "file") as beside:
        beside.touch(mode=0o600)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    for name in ("it/private", "file"):
        assert mode(tmp_path / name) == mode(usual)
    assert mode(tmp_path / "it/read_only") == 0o444
    assert mode(tmp_path / "it/program") == 0o755

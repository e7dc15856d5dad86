"""A shard comes back as it was written, or not at all."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from toy_backbone import Toy, picture, toy_samples

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, sha256
from adapterbench.formats.shards import (
    Sample,
    read_shard,
    read_split,
    shard_paths,
    write_shard,
)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of three samples."""
    path = tmp_path / "train-00000.tar"
    write_shard(path, list(toy_samples())[6:9])
    return path


def facts(samples: list[Sample]) -> list[tuple[object, ...]]:
    return [(s.key, s.image.tobytes(), s.captions, s.meta) for s in samples]


def rewrite(path: Path, changes: dict[str, bytes]) -> None:
    """The same tar with other bytes for some members."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    write_tar(path, members | changes)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def png(shape: str = "ring") -> bytes:
    file = io.BytesIO()
    picture(shape, "red").save(file, "PNG")
    return file.getvalue()


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    samples = list(toy_samples())
    row = write_shard(tmp_path / "a.tar", samples)
    assert facts(list(read_shard(tmp_path / "a.tar"))) == facts(samples)
    assert row == {"name": "a.tar", "samples": 24, "sha256": sha256(tmp_path / "a.tar")}


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_shard(tmp_path / name, toy_samples())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_is_what_other_webdataset_tools_expect(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        text = tar.extractfile("red-triangle.txt")
        assert text is not None
        assert text.read() == b"a red triangle"
        names = tar.getnames()
    # the members of a sample lie side by side, or readers of streams would see two halves
    assert {name.partition(".")[0] for name in names[:3]} == {"red-triangle"}
    assert {name.partition(".")[2] for name in names[:3]} == {"png", "txt", "json"}


def test_a_shard_that_others_made_is_read(tmp_path: Path) -> None:
    """CC3M's: `jpg` and `txt`, and a `json` with facts of its own."""
    jpeg = io.BytesIO()
    picture("bar", "blue").save(jpeg, "JPEG")
    write_tar(
        tmp_path / "cc3m.tar",
        {
            "0001.jpg": jpeg.getvalue(),
            "0001.txt": "a blue bar, café".encode(),
            "0001.json": json.dumps({"width": 32}).encode(),
            "0002.jpg": jpeg.getvalue(),
            "0002.txt": b"another",
        },
    )
    first, second = read_shard(tmp_path / "cc3m.tar")
    assert (first.key, first.captions, first.meta) == (
        "0001",
        ("a blue bar, café",),
        {"width": 32},
    )
    assert (second.key, second.captions, second.meta) == ("0002", ("another",), {})
    assert first.image.size == (32, 32)


def test_a_split_is_read_in_the_order_of_the_manifest(toy: Toy) -> None:
    held_out = [s.key for s in toy_samples() if s.meta["concept"] in ("diamond", "frame")]
    rest = [s.key for s in toy_samples() if s.key not in held_out]
    assert [s.key for s in read_split(toy.shards, "train")] == rest
    assert [s.key for s in read_split(toy.shards, "validation")] == held_out


def test_a_tar_cut_anywhere_is_refused(shard: Path) -> None:
    data = shard.read_bytes()
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    for length in [*range(0, end + 1024, 512), 100, 700, end - 1, end + 1]:
        shard.write_bytes(data[:length])
        with pytest.raises(UserError, match="truncated or damaged") as caught:
            list(read_shard(shard, on_bad=[]))
        assert str(shard) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["garbage", "header", "json", "caption", "twice"])
def test_a_damaged_tar_is_refused(shard: Path, damage: str) -> None:
    if damage == "garbage":
        shard.write_bytes(b"no tar at all" * 1000)
    elif damage == "header":
        data = bytearray(shard.read_bytes())
        data[0:100] = b"\xff" * 100
        shard.write_bytes(data)
    elif damage == "json":
        rewrite(shard, {"red-triangle.json": b"{"})
    elif damage == "caption":
        rewrite(shard, {"red-triangle.txt": b"\xff\xfe"})
    else:
        with tarfile.open(shard, "a") as tar:
            tar.addfile(tarfile.TarInfo("blue-triangle.png"))
    with pytest.raises(UserError, match="truncated or damaged"):
        list(read_shard(shard))


@pytest.mark.parametrize("bad", [b"", b"not a picture", png()[:60]])
def test_a_corrupt_picture_is_counted_or_refused(shard: Path, bad: bytes) -> None:
    rewrite(shard, {"green-triangle.png": bad})
    counted: list[dict[str, str]] = []
    kept = [sample.key for sample in read_shard(shard, counted)]
    assert kept == ["red-triangle", "blue-triangle"]
    assert counted == [{"key": "green-triangle", "cause": "not a readable image"}]
    with pytest.raises(UserError, match="green-triangle") as caught:
        list(read_shard(shard))
    assert str(shard) in str(caught.value)


def test_a_sample_without_a_picture_is_counted(shard: Path) -> None:
    write_tar(shard, {"a.png": png(), "a.txt": b"a", "b.txt": b"b"})
    counted: list[dict[str, str]] = []
    assert [sample.key for sample in read_shard(shard, counted)] == ["a"]
    assert [row["key"] for row in counted] == ["b"]


def test_what_is_missing_is_one_line(tmp_path: Path, toy: Toy) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        shard_paths(tmp_path, "train")
    (tmp_path / MANIFEST).write_text((toy.shards / MANIFEST).read_text())
    with pytest.raises(UserError, match=r"train-00000\.tar is missing"):
        list(read_split(tmp_path, "train"))
    with pytest.raises(UserError, match=r"no split 'test' .*train, validation"):
        shard_paths(toy.shards, "test")

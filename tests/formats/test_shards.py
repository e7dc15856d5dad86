"""A shard comes back as it was written, or not at all."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_backbone import Toy, toy_image, toy_samples

from adapterbench.core.errors import UserError
from adapterbench.core.files import MANIFEST, sha256
from adapterbench.formats.shards import (
    Packed,
    Sample,
    Shard,
    find_shards,
    read_captions,
    read_shard,
    read_split,
    write_shard,
)


def packed() -> list[Packed]:
    return [sample.packed() for sample in toy_samples()]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """A shard of three samples."""
    path = tmp_path / "train-00000.tar"
    write_shard(path, packed()[6:9])
    return Shard(path, 3)


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
    toy_image(shape, "red").save(file, "PNG")
    return file.getvalue()


def test_a_shard_comes_back_as_it_was_written(tmp_path: Path) -> None:
    samples = list(toy_samples())
    row = write_shard(tmp_path / "a.tar", packed())
    assert facts(list(read_shard(Shard(tmp_path / "a.tar", 24)))) == facts(samples)
    assert row == {"name": "a.tar", "samples": 24, "sha256": sha256(tmp_path / "a.tar")}


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_shard(tmp_path / name, packed())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_is_what_other_webdataset_tools_expect(shard: Shard) -> None:
    with tarfile.open(shard.path) as tar:
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
    toy_image("bar", "blue").save(jpeg, "JPEG")
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
    first, second = read_shard(Shard(tmp_path / "cc3m.tar", 2))
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


def test_a_tar_cut_anywhere_is_refused(shard: Shard) -> None:
    data = shard.path.read_bytes()
    with tarfile.open(shard.path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    for length in [*range(0, end + 1024, 512), 100, 700, end - 1, end + 1]:
        shard.path.write_bytes(data[:length])
        with pytest.raises(UserError, match="truncated or damaged") as caught:
            list(read_shard(shard, on_bad=[]))
        assert str(shard.path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", ["garbage", "header", "json", "list", "captions", "text", "twice"]
)
def test_a_damaged_tar_is_refused(shard: Shard, damage: str) -> None:
    if damage == "garbage":
        shard.path.write_bytes(b"no tar at all" * 1000)
    elif damage == "header":
        data = bytearray(shard.path.read_bytes())
        data[0:100] = b"\xff" * 100
        shard.path.write_bytes(data)
    elif damage == "json":
        rewrite(shard.path, {"red-triangle.json": b"{"})
    elif damage == "list":
        rewrite(shard.path, {"red-triangle.json": b"[]"})
    elif damage == "captions":
        rewrite(shard.path, {"red-triangle.json": b'{"captions": "a red triangle"}'})
    elif damage == "text":
        rewrite(shard.path, {"red-triangle.txt": b"\xff\xfe", "red-triangle.json": b"{}"})
    else:
        with tarfile.open(shard.path, "a") as tar:
            tar.addfile(tarfile.TarInfo("blue-triangle.png"))
    with pytest.raises(UserError, match="truncated or damaged"):
        list(read_shard(shard))


def all_samples(shard: Shard) -> int:
    """The samples of a shard, with those whose images are counted as bad."""
    bad: list[dict[str, str]] = []
    return len(list(read_shard(shard, bad))) + len(bad)


READERS = [all_samples, lambda shard: len(list(read_captions(shard)))]


@pytest.mark.parametrize("read", READERS)
def test_a_hole_is_refused(shard: Shard, read: Callable[[Shard], int]) -> None:
    whole = shard.path.read_bytes()
    with tarfile.open(shard.path) as tar:
        members = tar.getmembers()
    for member in members:
        begin, end = member.offset, member.offset_data
        zeroed = whole[:begin] + bytes(end - begin) + whole[end:]
        flipped = whole[:begin] + bytes([whole[begin] ^ 1]) + whole[begin + 1 :]
        for damaged in (zeroed, flipped):
            shard.path.write_bytes(damaged)
            with pytest.raises(UserError, match="truncated or damaged"):
                read(shard)
    for member in members[:7]:  # before the last sample
        shard.path.write_bytes(whole[: member.offset] + bytes(len(whole) - member.offset))
        with pytest.raises(UserError, match="truncated or damaged"):
            read(shard)


@pytest.mark.parametrize("read", READERS)
def test_another_number_of_samples_is_refused(shard: Shard, read: Callable[[Shard], int]) -> None:
    for other in (2, 4):
        with pytest.raises(UserError, match=f"it has 3 samples, not {other}"):
            read(Shard(shard.path, other))


def test_captions_are_read_alone(shard: Shard) -> None:
    assert list(read_captions(shard)) == [sample.captions for sample in read_shard(shard)]


@pytest.mark.parametrize("bad", [b"", b"not an image", png()[:60]])
def test_a_corrupt_image_is_counted_or_refused(shard: Shard, bad: bytes) -> None:
    rewrite(shard.path, {"green-triangle.png": bad})
    counted: list[dict[str, str]] = []
    kept = [sample.key for sample in read_shard(shard, counted)]
    assert kept == ["red-triangle", "blue-triangle"]
    assert counted == [{"key": "green-triangle", "cause": "not a readable image"}]
    with pytest.raises(UserError, match="green-triangle") as caught:
        list(read_shard(shard))
    assert str(shard.path) in str(caught.value)


def test_a_sample_without_a_image_is_counted(shard: Shard) -> None:
    write_tar(shard.path, {"a.png": png(), "a.txt": b"a", "b.txt": b"b"})
    counted: list[dict[str, str]] = []
    assert [sample.key for sample in read_shard(Shard(shard.path, 2), counted)] == ["a"]
    assert [row["key"] for row in counted] == ["b"]


def test_what_is_missing_is_one_line(tmp_path: Path, toy: Toy) -> None:
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        find_shards(tmp_path, "train")
    (tmp_path / MANIFEST).write_text((toy.shards / MANIFEST).read_text())
    with pytest.raises(UserError, match=r"train-00000\.tar is missing"):
        list(read_split(tmp_path, "train"))
    with pytest.raises(UserError, match=r"no split 'test' .*train, validation"):
        find_shards(toy.shards, "test")
